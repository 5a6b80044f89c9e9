// SPDX-License-Identifier: LGPL-2.1-only
// The socket options that the library lives on, with owners for those that must be put back.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "soccr/soccr.h"

namespace soccr {

template <typename T>
T get(int fd, int level, int name, const char* what) {
  T value{};
  socklen_t size = sizeof value;
  base::check(::getsockopt(fd, level, name, &value, &size), what, "TCP socket");
  return value;
}

// Empty when the kernel does not have the option, or not for this socket.
template <typename T>
std::optional<T> ask(int fd, int level, int name) {
  T value{};
  socklen_t size = sizeof value;
  return ::getsockopt(fd, level, name, &value, &size) == 0 ? std::optional<T>(value) : std::nullopt;
}

template <typename T>
bool try_set(int fd, int level, int name, const T& value) {
  return ::setsockopt(fd, level, name, &value, sizeof value) == 0;
}

template <typename T>
void set(int fd, int level, int name, const T& value, const char* what, const char* hint = "") {
  base::check(::setsockopt(fd, level, name, &value, sizeof value), what, "TCP socket", hint);
}

// 0, or a negative errno that says why this is no TCP socket.
int require_tcp(int fd);

unsigned state_of(int fd);

// Repair mode: the kernel does nothing by itself for reads, writes, shutdown, connect and close.
bool in_repair(int fd);
void enter_repair(int fd);
void leave_repair(int fd, bool probe);
std::uint32_t queue_seq(int fd, int queue);

// The queue that repair mode works on, TCP_RECV_QUEUE or TCP_SEND_QUEUE, for as long as it must be: while the send
// queue is selected, a packet of the peer makes the kernel take all that is unsent for sent.
class Selected {
 public:
  Selected(int fd, int queue) : fd_(fd) { set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue, "TCP_REPAIR_QUEUE"); }
  Selected(const Selected&) = delete;
  Selected& operator=(const Selected&) = delete;
  ~Selected() { try_set(fd_, IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_NO_QUEUE); }

 private:
  int fd_;
};

// Repair mode leaves timers and answers alone. This stops them, too: an IPsec policy for this one socket that blocks
// all it sends. A kernel without XFRM has no such thing; there the caller's own silencing has to do.
void mute(int fd);
void unmute(int fd);

soccr_address local_address(int fd);
std::optional<soccr_address> peer_address(int fd);
socklen_t to_sockaddr(const soccr_address& address, sockaddr_storage& to);
std::string text(const soccr_address& address);

// Room for what is put into the queues, and the old sizes afterwards.
class Buffers {
 public:
  explicit Buffers(int fd);
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers();

  // As getsockopt has the sizes. False when the socket may not have that much.
  bool receive_at_least(std::uint64_t size) { return grow(SO_RCVBUF, SO_RCVBUFFORCE, size); }
  bool send_at_least(std::uint64_t size) { return grow(SO_SNDBUF, SO_SNDBUFFORCE, size); }
  std::uint32_t send_size() const;
  // What to leave behind instead of what was found; 0 is no wish.
  void wish(std::uint32_t sndbuf, std::uint32_t rcvbuf, std::uint32_t lock);

 private:
  void set_size(int name, int forced, int size) const;
  bool grow(int name, int forced, std::uint64_t size);

  int fd_;
  int sndbuf_, rcvbuf_, lock_;
  bool touched_ = false;
};

}  // namespace soccr
