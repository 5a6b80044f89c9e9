// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/guard.hpp"

#include <fcntl.h>
#include <fdinfo.pb.h>  // before <signal.h>, whose macro has the name of a field of it
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "base/error.hpp"
#include "kernel/procfs.hpp"
#include "log.hpp"
#include "namespaces/net.hpp"
#include "sockets/call.hpp"
#include "sockets/keeper_line.hpp"
#include "sockets/soccr_call.hpp"

namespace criu::sockets {

using base::check;
using base::Error;

namespace {

constexpr int low_descriptors = 8;

bool has_ended(int pidfd, int wait_ms) {
  pollfd poll{pidfd, POLLIN, 0};
  return ::poll(&poll, 1, wait_ms) > 0;
}

bool is_dying(pid_t pid) {
  constexpr std::uint32_t exiting = 4;  // PF_EXITING
  try {
    const procfs::Task task(pid);
    const auto pending = procfs::parse_status(task.read("status")).signals_pending;
    return (pending & 1ULL << (SIGKILL - 1)) != 0 || (procfs::parse_stat(task.read("stat")).flags & exiting) != 0;
  } catch (const Error&) {
    return true;  // it is gone
  }
}

// A tree that was killed in the moment of the dumper's own death has its end yet to come; that of an init only comes
// with that of all others.
bool ends(pid_t root, int pidfd) {
  constexpr int patience_ms = 1000, step_ms = 100;
  for (int waited = 0; waited < patience_ms || is_dying(root); waited += step_ms) {
    if (has_ended(pidfd, step_ms)) {
      return true;
    }
  }
  return has_ended(pidfd, 0);
}

// Whoever wakes it is at its end, and tasks that it traced run next.
void go_first() {
  sched_param priority{};
  priority.sched_priority = 1;
  (void)::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority);  // where that is allowed
}

void take_over(const Line& line, int fd, const std::string& what) {
  Soccr(fd, what).resume(SOCCR_QUIET);
  set(fd, SOL_SOCKET, SO_REUSEADDR, line.reuseaddr, what);
  set(fd, SOL_SOCKET, SO_OOBINLINE, line.oobinline, what);
  if (line.peek_off >= 0) {
    set(fd, SOL_SOCKET, SO_PEEK_OFF, line.peek_off, what);
  }
}

}  // namespace

void Guard::Unmap::operator()(Line* line) const { ::munmap(line, sizeof(Line)); }

Guard::~Guard() {
  try {
    const namespaces::InsideNet inside(network_);
    if (!keepers_.empty() && lock_ != nullptr) {
      lock_->hand_over();
    }
    await_keepers();
    lock_.reset();
  } catch (const Error& error) {
    LOG_ERROR("{}", error.what());
  }
}

std::string Guard::serve(const outside::Request& request) {
  // Where the connections are, the lock is; among our own mounts, where its programs are. Keepers are born there, too.
  const namespaces::InsideNet inside(network_);
  switch (static_cast<Call>(request.errand.value)) {
    case Call::lock:
      return lock(request);
    case Call::keep:
      keep(request);
      break;
    case Call::engage:
      if (lock_ != nullptr) {
        lock_->engage();
        return std::to_string(lock_->tables());
      }
      return "0";
    case Call::unlock:
      if (!complete_) {
        lock_.reset();
      }
      break;
    case Call::complete:
      complete_ = true;
      if (lock_ != nullptr) {
        lock_->is_left();
        lock_->hand_over();
      }
      if (!await_keepers() && lock_ != nullptr) {
        lock_->take_back();
      }
      lock_.reset();
      break;
    case Call::end:
      await_keepers();
      break;
  }
  return {};
}

std::string Guard::lock(const outside::Request& request) {
  Unpacked data(request.data);
  const auto method = choose_lock(data.take<NetworkLockMethod>());
  silent_ = data.take<bool>();
  name_ = data.take_text();
  owner_ = lock_owner(root_);
  std::vector<Connection> ends(data.take<std::size_t>());
  for (auto& connection : ends) {
    connection = data.take<Connection>();
  }
  tree_.reset(
      static_cast<int>(check(::syscall(SYS_pidfd_open, root_, 0), "open pidfd of", fmt::format("task {}", root_))));
  for (int i = 0; i < low_descriptors; ++i) {
    low_.emplace_back(check(::fcntl(tree_.get(), F_DUPFD_CLOEXEC, 0), "keep a descriptor free"));
  }
  if (method != NetworkLockMethod::skip) {
    remove_stale_locks(method, root_);
    lock_ = std::make_unique<NetworkLock>(method, std::move(ends));
  }
  return std::to_string(static_cast<int>(method));
}

void Guard::keep(const outside::Request& request) {
  Unpacked data(request.data);
  void* at = ::mmap(nullptr, sizeof(Line), PROT_READ | PROT_WRITE, MAP_SHARED, request.descriptor(data.take<int>()), 0);
  if (at == MAP_FAILED) {
    throw Error("map memory shared with who keeps connections", {}, errno);
  }
  std::unique_ptr<Line, Unmap> line(static_cast<Line*>(at));
  std::vector<Kept> kept(data.take<std::size_t>());
  for (auto& one : kept) {
    one.fd = request.descriptor(data.take<int>());
    one.what = data.take_text();
  }
  // A keyboard's signals are for the dump, and are not to end this.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  const auto pid = ::fork();
  const int error = errno;
  if (pid == 0) {
    be_keeper(*line, kept);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    throw Error("fork who keeps the connections of", fmt::format("task {}", root_), error);
  }
  keepers_.push_back({pid, std::move(line)});
}

void Guard::be_keeper(Line& line, const std::vector<Kept>& kept) {
  const bool first = keepers_.empty();  // it has the lock
  try {
    go_first();
    low_.clear();
    if (lock_ != nullptr) {
      lock_->is_kept();
    }
    const bool died = ::pthread_mutex_lock(&line.mutex) == EOWNERDEAD;
    if (const auto copied = line.copied.load(); died && copied != Line::nobody) {
      const auto& one = kept[static_cast<std::size_t>(copied)];
      take_over(line, one.fd, one.what);
    }
    const bool over = died ? line.at_the_end && ends(root_, tree_.get()) : line.gone;
    if (over && first && lock_ != nullptr) {
      lock_->leave(name_, owner_);
    }
    if (over && silent_) {
      fall_silent(kept);
    }
    // Who let the tree go has unlocked before; who ended it leaves that to us, since it may be killed any moment.
    if ((died || over) && first && lock_ != nullptr) {
      lock_->end_for_owner();
    }
  } catch (const std::exception& error) {
    line.complain(error.what());
    ::_exit(1);
  }
  ::_exit(0);
}

// In any order: the lock of the dump is there as long as one of us is.
void Guard::fall_silent(const std::vector<Kept>& kept) {
  for (const auto& one : kept) {
    Soccr connection(one.fd, one.what);
    connection.hold();
    connection.detach();
  }
}

bool Guard::await_keepers() {
  bool good = true;
  for (const auto& keeper : keepers_) {
    int status = 0;
    while (::waitpid(keeper.pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0) {
      good = false;
      const auto* complaint = keeper.line->complaint;
      LOG_ERROR("the connections of the tree, which may be {}, are not all as they should be: {}",
                silent_ ? "gone" : "stopped", complaint[0] != '\0' ? complaint : "who kept them was killed");
    }
  }
  keepers_.clear();
  return good;
}

}  // namespace criu::sockets
