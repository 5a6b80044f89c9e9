// SPDX-License-Identifier: LGPL-2.1-only
#include "outside.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace criu::outside {

using base::check;
using base::Error;

namespace {

enum class Kind : std::uint32_t { errand, done, result, parting, failure, script_failure };

// One packet of the socket between the two: the head, then a text.
struct Head {
  Kind kind;
  Errand errand;  // of a script's failure: the event
  std::int32_t code = 0;
  std::uint64_t data = 0, size = 0;  // what comes with an errand: where in the memory of the deputy it is
};

struct Packet {
  Head head{};
  std::string text;
};

// Of this process: who does its errands.
const Serve* served_by = nullptr;
int outside_fd = -1;  // in a deputy

void send(int fd, const Head& head, const std::string& text) {
  std::string packet(reinterpret_cast<const char*>(&head), sizeof head);
  packet += text;
  check(::send(fd, packet.data(), packet.size(), MSG_NOSIGNAL), "tell the process outside of the tree");
}

// Nothing: the other one is gone.
std::optional<Packet> receive(int fd) {
  ssize_t size = 0;
  while ((size = ::recv(fd, nullptr, 0, MSG_PEEK | MSG_TRUNC)) < 0 && errno == EINTR) {
  }
  if (size < static_cast<ssize_t>(sizeof(Head))) {
    return std::nullopt;
  }
  std::string bytes(static_cast<std::size_t>(size), '\0');
  while ((size = ::recv(fd, bytes.data(), bytes.size(), 0)) < 0 && errno == EINTR) {
  }
  if (size < static_cast<ssize_t>(sizeof(Head))) {
    return std::nullopt;
  }
  Packet packet;
  bytes.copy(reinterpret_cast<char*>(&packet.head), sizeof(Head));
  packet.text = bytes.substr(sizeof(Head));
  return packet;
}

// The parts of an Error, each with its end.
void send_error(int fd, const Error& error) {
  const auto* script = dynamic_cast<const ScriptFailed*>(&error);
  Head head{.kind = script != nullptr ? Kind::script_failure : Kind::failure, .errand = {}, .code = error.code()};
  if (script != nullptr) {
    head.errand.value = static_cast<std::uint32_t>(script->event());
  }
  send(fd, head, error.operation() + '\0' + error.object() + '\0' + error.hint() + '\0');
}

[[noreturn]] void throw_error(const Packet& packet) {
  std::vector<std::string> parts(1);
  for (const char c : packet.text) {
    if (c == '\0') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  parts.resize(3);
  if (packet.head.kind == Kind::script_failure) {
    throw ScriptFailed(static_cast<Event>(packet.head.errand.value), parts[0], parts[1]);
  }
  throw Error(parts[0], parts[1], packet.head.code, parts[2]);
}

template <typename Do>
bool telling_errors(int fd, Do action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    send_error(fd, error);
  } catch (const std::exception& error) {
    send_error(fd, Error("internal error", error.what(), 0));
  }
  return false;
}

// Whoever made it may have died before the deputy could bind itself to that.
void die_with(int parent) {
  check(::prctl(PR_SET_PDEATHSIG, SIGKILL), "bind a process to its parent");
  pollfd ended{parent, POLLIN, 0};
  if (::poll(&ended, 1, 0) != 0) {
    ::_exit(1);
  }
}

// Nothing of what the other process owns may be undone here: no destructor runs that is not of the work's own.
[[noreturn]] void be_deputy(int fd, int parent, const Work& work) {
  outside_fd = fd;
  const bool well = telling_errors(fd, [&] {
    die_with(parent);
    send(fd, {.kind = Kind::result, .errand = {}}, work());
  });
  ::_exit(well ? 0 : 1);
}

std::string ending_of(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, __WALL) < 0 && errno == EINTR) {
  }
  return WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status)) : std::to_string(WEXITSTATUS(status));
}

std::string data_of(pid_t deputy, const Head& head) {
  std::string data(head.size, '\0');
  const iovec here{data.data(), data.size()};
  const iovec there{reinterpret_cast<void*>(head.data), data.size()};
  if (!data.empty() && ::process_vm_readv(deputy, &here, 1, &there, 1, 0) != static_cast<ssize_t>(data.size())) {
    throw Error("read what came with an errand", {}, errno);
  }
  return data;
}

// The errand may be what the deputy died of.
void answer(int fd, pid_t deputy, const Head& head, const Serve& serve) {
  try {
    telling_errors(fd, [&] {
      const base::Fd from(static_cast<int>(check(::syscall(SYS_pidfd_open, deputy, 0), "open a pidfd of the deputy")));
      const auto answered = serve(Request(head.errand, data_of(deputy, head), from.get()));
      send(fd, {.kind = Kind::done, .errand = {}}, answered);
    });
  } catch (const Error& error) {
    if (error.code() != EPIPE) {
      throw;
    }
  }
}

std::string serve(int fd, pid_t deputy, const Serve& serve) {
  std::optional<std::string> result;
  bool over = false;  // what it forked may have its end of the socket for longer
  while (!over) {
    auto packet = receive(fd);
    if (!packet) {
      break;
    }
    switch (packet->head.kind) {
      case Kind::errand:
        answer(fd, deputy, packet->head, serve);
        break;
      case Kind::failure:
      case Kind::script_failure:
        ending_of(deputy);
        throw_error(*packet);
      default:
        over = packet->head.kind == Kind::result;
        result = std::move(packet->text);
    }
  }
  const auto ending = ending_of(deputy);
  if (!result) {
    throw Error("cannot go on", "the process that worked inside the tree's namespaces ended: " + ending, 0);
  }
  return *result;
}

}  // namespace

std::string stay(const Work& work, const Serve& serve) {
  served_by = &serve;
  struct Forget {
    ~Forget() { served_by = nullptr; }
  } const forget;
  return work();
}

std::string depute(const std::function<pid_t()>& fork, const Work& work, const Serve& serve_errand) {
  int ends[2];
  check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "make a pair of sockets");
  base::Fd here(ends[0]), there(ends[1]);
  const base::Fd self(
      static_cast<int>(check(::syscall(SYS_pidfd_open, ::getpid(), 0), "open a pidfd of this process")));
  const auto deputy = fork();
  if (deputy == 0) {
    here.reset();
    be_deputy(there.get(), self.get(), work);
  }
  there.reset();
  return serve(here.get(), deputy, serve_errand);
}

int Request::descriptor(int fd) const {
  if (from_ < 0) {
    return fd;
  }
  copies_.emplace_back(static_cast<int>(check(::syscall(SYS_pidfd_getfd, from_, fd, 0), "fetch a descriptor")));
  return copies_.back().get();
}

std::string ask(const Errand& errand, std::string_view data) {
  if (outside_fd < 0) {
    return (*served_by)(Request(errand, std::string(data), -1));
  }
  send(outside_fd,
       {.kind = Kind::errand,
        .errand = errand,
        .data = reinterpret_cast<std::uint64_t>(data.data()),
        .size = data.size()},
       {});
  const auto answer = receive(outside_fd);
  if (!answer) {
    throw Error("cannot go on", "the process outside of the tree's namespaces is gone", 0);
  }
  if (answer->head.kind != Kind::done) {
    throw_error(*answer);
  }
  return answer->text;
}

void part(const std::string& result) {
  if (outside_fd >= 0) {
    send(outside_fd, {.kind = Kind::parting, .errand = {}}, result);
  }
}

}  // namespace criu::outside
