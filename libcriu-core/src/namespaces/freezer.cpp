// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/freezer.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <sstream>

#include "base/error.hpp"
#include "kernel/cgroups.hpp"
#include "log.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

using Clock = std::chrono::steady_clock;

bool own_state(int group, bool v2) {
  return kernel::read_property(group, v2 ? "cgroup.freeze" : "freezer.self_freezing") == "1";
}

bool has_this_process(int group) {
  std::istringstream members(kernel::read_property(group, "cgroup.procs").value_or(""));
  for (pid_t pid = 0; members >> pid;) {
    if (pid == ::getpid()) {
      return true;
    }
  }
  return false;
}

}  // namespace

Freezer::Freezer(const std::string& path) : path_(path) {
  if (path.empty()) {
    return;
  }
  base::Fd group(check(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open the control group", path));
  v2_ = ::faccessat(group.get(), "cgroup.freeze", F_OK, 0) == 0;
  if (!v2_ && ::faccessat(group.get(), "freezer.state", F_OK, 0) != 0) {
    throw Error("cannot freeze", path, 0,
                "it is no control group of version 2 nor of the freezer of version 1, or it is the root of all");
  }
  struct stat info {};
  check(::fstat(group.get(), &info), "stat", path);
  inode_ = info.st_ino;
  group_ = std::move(group);
  look_at(group_.get(), path);
  check_above();
  keep_watch();
}

// What stands still by its own state is to do so again in the end.
void Freezer::look_at(int group, const std::string& path) {
  if (has_this_process(group)) {
    throw Error("cannot freeze", path, 0, "this program is in that control group itself");
  }
  if (own_state(group, v2_)) {
    struct stat info {};
    check(::fstat(group, &info), "stat", path);
    inodes_.insert(info.st_ino);
    frozen_.push_back({base::Fd(check(::fcntl(group, F_DUPFD_CLOEXEC, 0), "open", path)), path});
  }
  for (const auto& child : kernel::children_of_group(group)) {
    if (const auto below = kernel::try_open_group(group, child)) {
      look_at(below.get(), fmt::format("{}/{}", path, child));
    }
  }
}

void Freezer::check_above() const {
  base::Fd above(check(::openat(group_.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open what is above", path_));
  const char* state = v2_ ? "cgroup.freeze" : "freezer.self_freezing";
  while (const auto value = kernel::read_property(above.get(), state)) {
    if (*value == "1") {
      throw Error("cannot freeze", path_, 0, "a control group above it is frozen, which this program does not undo");
    }
    above =
        base::Fd(check(::openat(above.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open what is above", path_));
  }
}

int Freezer::set(int group, bool frozen) const {
  return v2_ ? kernel::write_property(group, "cgroup.freeze", frozen ? "1" : "0")
             : kernel::write_property(group, "freezer.state", frozen ? "FROZEN" : "THAWED");
}

bool Freezer::is_frozen() const {
  return v2_ ? kernel::read_property(group_.get(), "cgroup.events").value_or("").find("frozen 1") != std::string::npos
             : kernel::read_property(group_.get(), "freezer.state") == "FROZEN";
}

void Freezer::await_frozen(unsigned timeout_seconds) const {
  constexpr unsigned usual = 10;
  const auto until = Clock::now() + std::chrono::seconds(timeout_seconds == 0 ? usual : timeout_seconds);
  const base::Fd events(v2_ ? ::openat(group_.get(), "cgroup.events", O_RDONLY | O_CLOEXEC) : -1);
  const auto refresh = [&] {
    char byte = 0;
    return !events || ::pread(events.get(), &byte, 1, 0) == 1;  // a change after this is told
  };
  for (refresh(); !is_frozen(); refresh()) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    if (left <= 0) {
      throw Error("freeze", "control group " + path_, ETIMEDOUT,
                  "some task of it is in an uninterruptible wait, or stopped by a debugger");
    }
    // Version 1 tells nobody; a short while is what its tasks need for the way into the freezer.
    pollfd change{events.get(), POLLPRI, 0};
    ::poll(&change, 1, static_cast<int>(v2_ ? left : std::min<std::int64_t>(left, 1)));
  }
}

void Freezer::freeze(unsigned timeout_seconds) {
  if (const int error = set(group_.get(), true); error != 0) {
    throw Error("freeze", "control group " + path_, error);
  }
  await_frozen(timeout_seconds);
}

int Freezer::let_go() {
  int error = set(group_.get(), false);
  for (const auto& group : frozen_) {
    const int other = set(group.directory.get(), false);
    error = error != 0 ? error : other;
  }
  return -error;
}

void Freezer::put_back() const {
  if (any() && !inodes_.contains(inode_)) {
    set(group_.get(), false);
  }
  for (const auto& group : frozen_) {
    if (const int error = set(group.directory.get(), true); error != 0) {
      LOG_ERROR("cannot freeze control group {} again: {}", group.path, std::strerror(error));
    }
  }
}

// Somebody who is left if this process is killed.
void Freezer::keep_watch() {
  const base::Fd self(
      static_cast<int>(check(::syscall(SYS_pidfd_open, ::getpid(), 0), "open a pidfd of this process")));
  watcher_ = check(::fork(), "make a process that looks after", path_);
  if (watcher_ != 0) {
    return;
  }
  ::setsid();
  pollfd end{self.get(), POLLIN, 0};
  while (::poll(&end, 1, -1) < 0 && errno == EINTR) {
  }
  put_back();
  ::_exit(0);
}

Freezer::~Freezer() {
  if (!any()) {
    return;
  }
  put_back();
  ::kill(watcher_, SIGKILL);
  while (::waitpid(watcher_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace criu::namespaces
