// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/steward.hpp"

#include <fcntl.h>
#include <fdinfo.pb.h>  // before <signal.h>, whose macro has the name of a field of it
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.hpp"
#include "restore_context.hpp"
#include "task/master.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

enum class Wish : std::uint32_t { image, descriptor, mapping, option, limit, attribute };

struct Request {
  Wish wish;
  std::int32_t number;  // the descriptor, the flags, the option, the resource
  std::uint64_t value;  // of the option, of the limit
  std::int32_t level;   // of the option
  char name[256];       // of the image, of the mapping, of the attribute
  char text[32];        // what is to be written there
};

struct Reply {
  std::int32_t error;
};

union Control {
  cmsghdr head;
  char space[CMSG_SPACE(2 * sizeof(int)) + CMSG_SPACE(sizeof(ucred))];
};

// A packet, with descriptors. Each has a line of its own for the reply: many ask at once.
bool send(int line, const void* data, std::size_t size, const int* fds, std::size_t count) {
  Control control{};
  iovec io{const_cast<void*>(data), size};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  if (count != 0) {
    message.msg_control = control.space;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    auto* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(count * sizeof(int));
    std::memcpy(CMSG_DATA(head), fds, count * sizeof(int));
  }
  return ::sendmsg(line, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

struct Received {
  ssize_t size = -1;
  base::Fd fds[2];
  pid_t sender = 0;
};

Received receive(int line, void* data, std::size_t size) {
  Control control{};
  iovec io{data, size};
  msghdr message{};
  message.msg_iov = &io;
  message.msg_iovlen = 1;
  message.msg_control = control.space;
  message.msg_controllen = sizeof control.space;
  Received received;
  while ((received.size = ::recvmsg(line, &message, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {
  }
  for (auto* head = received.size < 0 ? nullptr : CMSG_FIRSTHDR(&message); head != nullptr;
       head = CMSG_NXTHDR(&message, head)) {
    if (head->cmsg_type == SCM_RIGHTS) {
      const auto count = std::min<std::size_t>((head->cmsg_len - CMSG_LEN(0)) / sizeof(int), 2);
      for (std::size_t i = 0; i < count; ++i) {
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(head) + i * sizeof fd, sizeof fd);
        received.fds[i].reset(fd);
      }
    } else if (head->cmsg_type == SCM_CREDENTIALS) {
      ucred sender{};
      std::memcpy(&sender, CMSG_DATA(head), sizeof sender);
      received.sender = sender.pid;
    }
  }
  return received;
}

int failed_with(long result) { return result < 0 ? errno : 0; }

int raise_limit(pid_t who, int resource, rlim_t hard) {
  rlimit limit{};
  const auto which = static_cast<__rlimit_resource>(resource);
  if (::prlimit(who, which, nullptr, &limit) < 0) {
    return errno;
  }
  limit.rlim_max = hard;
  return failed_with(::prlimit(who, which, &limit, nullptr));
}

int write_attribute(pid_t who, const Request& request) {
  const base::Fd file(::open(fmt::format("/proc/{}/{}", who, request.name).c_str(), O_WRONLY | O_CLOEXEC));
  return file ? failed_with(::write(file.get(), request.text, std::strlen(request.text))) : errno;
}

int set_socket_option(int socket, const Request& request) {
  const auto value = static_cast<int>(request.value);
  return failed_with(::setsockopt(socket, request.level, request.number, &value, sizeof value));
}

base::Fd open_for(const Received& asked, const Request& request, int images) {
  switch (request.wish) {
    case Wish::image:
      return base::Fd(::openat(images, request.name, O_RDONLY | O_CLOEXEC));
    case Wish::mapping:
      return base::Fd(
          ::open(fmt::format("/proc/{}/map_files/{}", asked.sender, request.name).c_str(), request.number | O_CLOEXEC));
    default:
      return base::Fd(static_cast<int>(::syscall(SYS_pidfd_getfd, asked.fds[1].get(), request.number, 0)));
  }
}

// Until nobody is left who could ask.
[[noreturn]] void serve(int line, int images) {
  for (;;) {
    Request request{};
    const auto received = receive(line, &request, sizeof request);
    if (received.size <= 0) {
      ::_exit(0);
    }
    base::Fd given;
    int error = 0;
    switch (request.wish) {
      case Wish::option:
        error = set_socket_option(received.fds[1].get(), request);
        break;
      case Wish::limit:
        error = raise_limit(received.sender, request.number, request.value);
        break;
      case Wish::attribute:
        error = write_attribute(received.sender, request);
        break;
      default:
        given = open_for(received, request, images);
        error = given ? 0 : errno;
    }
    const Reply reply{error};
    const int fd = given.get();
    send(received.fds[0].get(), &reply, sizeof reply, &fd, given ? 1 : 0);
  }
}

// What there is to get, and with errno what came of it.
base::Fd ask(int line, const Request& request, int with = -1) {
  int ends[2];
  check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "make a pair of sockets");
  base::Fd here(ends[0]), there(ends[1]);
  const int fds[] = {there.get(), with};
  if (!send(line, &request, sizeof request, fds, with < 0 ? 1 : 2)) {
    throw Error("ask the process outside of the user namespace", {}, errno);
  }
  there.reset();
  Reply reply{};
  auto received = receive(here.get(), &reply, sizeof reply);
  if (received.size != sizeof reply) {
    throw Error("cannot go on", "the process outside of the user namespace is gone", 0);
  }
  errno = reply.error;
  return std::move(received.fds[0]);
}

}  // namespace

const Steward* Steward::current_ = nullptr;

Steward::Steward(const RestoreContext& context) {
  int ends[2];
  check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "make a pair of sockets");
  base::Fd there(ends[1]);
  line_ = context.internal(base::Fd(ends[0]));
  constexpr int on = 1;
  check(::setsockopt(there.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on), "set up a pair of sockets");
  pid_ = check(::fork(), "make a process");
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    line_.reset();
    serve(there.get(), context.images.fd());
  }
  current_ = this;
}

Steward::~Steward() {
  current_ = nullptr;
  ::kill(pid_, SIGKILL);
  task::reap(pid_);
}

namespace {

Request request(Wish wish, const std::string& name, std::int32_t number = 0, std::uint64_t value = 0) {
  Request made{};
  made.wish = wish;
  made.number = number;
  made.value = value;
  if (name.size() >= sizeof made.name) {
    throw Error("ask the process outside of the user namespace", name, ENAMETOOLONG);
  }
  name.copy(made.name, name.size());
  return made;
}

}  // namespace

base::Fd Steward::open_image(const std::string& name) const { return ask(line_.get(), request(Wish::image, name)); }

base::Fd Steward::fetch(int pidfd, int fd) const { return ask(line_.get(), request(Wish::descriptor, "", fd), pidfd); }

base::Fd Steward::open_mapping(const std::string& range, int flags) const {
  return ask(line_.get(), request(Wish::mapping, range, flags));
}

bool Steward::set_option(int socket, int level, int option, int value) const {
  auto wish = request(Wish::option, "", option, static_cast<std::uint64_t>(value));
  wish.level = level;
  ask(line_.get(), wish, socket);
  return errno == 0;
}

bool Steward::raise_hard_limit(int resource, rlim_t limit) const {
  ask(line_.get(), request(Wish::limit, "", resource, limit));
  return errno == 0;
}

bool Steward::set_attribute(const char* file, const std::string& value) const {
  auto wish = request(Wish::attribute, file);
  value.copy(wish.text, sizeof wish.text - 1);
  ask(line_.get(), wish);
  return errno == 0;
}

}  // namespace criu::namespaces
