// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/farewell.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.hpp"
#include "log.hpp"
#include "sockets/soccr_call.hpp"

namespace criu::sockets {

using base::check;
using base::Error;

namespace {

// What is said on the line: that the copies are there, that the tree is gone, that it is not going to be. A line that
// ends says that the dumping program is gone. Answers that are longer are errors.
constexpr char ready = 'r', gone = 'g', stays = 's';
constexpr std::size_t spare_descriptors = 128;
// A tree that was killed in the moment of the dumper's own death is gone by then.
constexpr int dying_ms = 1000;

std::size_t copies_at_once() {
  rlimit limit{};
  check(::getrlimit(RLIMIT_NOFILE, &limit), "read the limit on open files");
  return std::max<std::size_t>(limit.rlim_max, 2 * spare_descriptors) - spare_descriptors;
}

void raise_limit() {
  rlimit limit{};
  check(::getrlimit(RLIMIT_NOFILE, &limit), "read the limit on open files");
  limit.rlim_cur = limit.rlim_max;
  check(::setrlimit(RLIMIT_NOFILE, &limit), "raise the limit on open files");
}

std::vector<base::Fd> copy(const Met* begin, const Met* end) {
  raise_limit();
  std::vector<base::Fd> copies;
  copies.reserve(static_cast<std::size_t>(end - begin));
  base::Fd pidfd;
  pid_t pid = 0;
  for (const auto* met = begin; met != end; ++met) {
    if (met->pid != pid) {
      pid = met->pid;
      pidfd = base::Fd(static_cast<int>(check(::syscall(SYS_pidfd_open, pid, 0), "open pidfd for", met->what)));
    }
    copies.emplace_back(
        static_cast<int>(check(::syscall(SYS_pidfd_getfd, pidfd.get(), met->fd, 0), "fetch", met->what)));
  }
  return copies;
}

bool has_ended(int pidfd, int wait_ms) {
  pollfd poll{pidfd, POLLIN, 0};
  return ::poll(&poll, 1, wait_ms) > 0;
}

void say(int line, const std::string& text) { (void)::send(line, text.data(), text.size(), MSG_NOSIGNAL); }

// Empty at its end.
std::string hear(int line) {
  std::string text(1024, '\0');
  ssize_t got = 0;
  do {
    got = ::recv(line, text.data(), text.size(), 0);
  } while (got < 0 && errno == EINTR);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

}  // namespace

Farewell::Farewell(pid_t root, const std::vector<Met>& met, NetworkLock* lock, std::string name, std::string owner)
    : lock_(lock), name_(std::move(name)), owner_(std::move(owner)) {
  const auto at_once = copies_at_once();
  for (std::size_t at = 0; at < met.size(); at += at_once) {
    start(root, met.data() + at, met.data() + std::min(at + at_once, met.size()), at == 0);
  }
  for (const auto& keeper : keepers_) {
    if (const auto answer = hear(keeper.line.get()); answer != std::string(1, ready)) {
      dismiss(stays);
      throw Error("keep the connections of the tree", answer, 0);
    }
  }
}

Farewell::~Farewell() { dismiss(stays); }

void Farewell::start(pid_t root, const Met* begin, const Met* end, bool first) {
  const auto what = fmt::format("task {}", root);
  const base::Fd pidfd(static_cast<int>(check(::syscall(SYS_pidfd_open, root, 0), "open pidfd of", what)));
  int ends[2];
  check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "make a line to who keeps connections of", what);
  base::Fd ours(ends[0]), theirs(ends[1]);
  // A keyboard's signals are for the dump, and are not to end this.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  const auto pid = ::fork();
  const int error = errno;
  if (pid == 0) {
    ours.reset();
    keepers_.clear();  // the lines of the others
    keep(theirs.get(), pidfd.get(), begin, end, first);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    throw Error("fork who keeps the connections of", what, error);
  }
  keepers_.push_back({pid, std::move(ours)});
}

void Farewell::keep(int line, int root, const Met* begin, const Met* end, bool first) {
  try {
    const auto sockets = copy(begin, end);
    say(line, std::string(1, ready));
    const auto word = hear(line);
    // The dumper's end comes without a word; then the tree says what it was about to do.
    if (word == std::string(1, gone) || (word.empty() && has_ended(root, dying_ms))) {
      fall_silent(sockets, begin, first);
    }
    if (word.empty() && first && lock_ != nullptr) {
      lock_->~NetworkLock();  // in place of its owner
    }
  } catch (const std::exception& error) {
    say(line, error.what());
    ::_exit(1);
  }
  ::_exit(0);
}

void Farewell::fall_silent(const std::vector<base::Fd>& sockets, const Met* met, bool first) {
  // In any order: the lock of the dump is there as long as one of us is.
  if (first && lock_ != nullptr) {
    lock_->leave(name_, owner_);
  }
  for (const auto& socket : sockets) {
    Soccr connection(socket.get(), met++->what);
    connection.hold();
    connection.detach();
  }
}

void Farewell::complete() {
  if (lock_ != nullptr && keepers_.empty()) {
    try {
      lock_->leave(name_, owner_);
    } catch (const Error& error) {
      LOG_ERROR("the connections of the tree, which is stopped, are not silent: {}", error.what());
    }
  } else if (lock_ != nullptr) {
    lock_->is_left();
  }
  dismiss(gone);
}

void Farewell::dismiss(char word) {
  for (const auto& keeper : keepers_) {
    say(keeper.line.get(), std::string(1, word));
  }
  for (const auto& keeper : keepers_) {
    if (const auto complaint = word == gone ? hear(keeper.line.get()) : std::string(); !complaint.empty()) {
      LOG_ERROR("the connections of the tree, which is gone, are not all silent: {}", complaint);
    }
    while (::waitpid(keeper.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  keepers_.clear();
}

}  // namespace criu::sockets
