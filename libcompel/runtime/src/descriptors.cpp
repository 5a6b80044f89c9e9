// SPDX-License-Identifier: LGPL-2.1-only
#include <linux/errno.h>

#include "internal.hpp"

namespace compel::rt {
namespace {

// The kernel's shapes of sendmsg(2), spelt out: the headers that have them belong to a libc.
struct Vector {
  void* base;
  std::size_t length;
};
struct Message {
  void* name;
  int name_length;
  Vector* vectors;
  std::size_t vector_count;
  void* control;
  std::size_t control_length;
  unsigned flags;
};
struct Rights {
  std::size_t length;
  int level, type;
  int fd, padding;
};
constexpr int level_socket = 1, type_rights = 1;
constexpr std::size_t rights_length = sizeof(std::size_t) + 3 * sizeof(int);
constexpr long no_signal = 0x4000, close_on_exec = 0x40000000;

}  // namespace

int send_fd(int socket, int fd) {
  char byte = 'f';
  Vector vector = {&byte, 1};
  Rights rights = {rights_length, level_socket, type_rights, fd, 0};
  Message message = {nullptr, 0, &vector, 1, &rights, sizeof rights, 0};
  const long sent = syscall(__NR_sendmsg, socket, reinterpret_cast<long>(&message), no_signal);
  return sent < 0 ? static_cast<int>(sent) : 0;
}

int receive_fd(int socket) {
  char byte = 0;
  Vector vector = {&byte, 1};
  Rights rights = {0, 0, 0, -1, 0};
  Message message = {nullptr, 0, &vector, 1, &rights, sizeof rights, 0};
  const long got = syscall(__NR_recvmsg, socket, reinterpret_cast<long>(&message), close_on_exec);
  if (got < 0) {
    return static_cast<int>(got);
  }
  constexpr unsigned truncated = 8;  // MSG_CTRUNC: there was one, but no free slot for it
  if ((message.flags & truncated) != 0) {
    return -EMFILE;
  }
  if (rights.length != rights_length || rights.level != level_socket || rights.type != type_rights) {
    return -ENODATA;
  }
  return rights.fd;
}

}  // namespace compel::rt
