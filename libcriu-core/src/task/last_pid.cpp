// SPDX-License-Identifier: LGPL-2.1-only
#include "task/last_pid.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.hpp"

namespace criu::task {

using base::check;
using base::Error;

namespace {

constexpr const char* path = "/proc/sys/kernel/ns_last_pid";
// Others may take the pid that comes next; while it stays free it is tried for again.
constexpr int most_attempts = 64;

class Locked {
 public:
  explicit Locked(const base::Fd& file) : file_(file) { check(::flock(file.get(), LOCK_EX), "lock", path); }
  // Not left to the closing: a child has the same open file.
  ~Locked() { ::flock(file_.get(), LOCK_UN); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  const base::Fd& file_;
};

}  // namespace

bool LastPid::needed_ = false;

bool LastPid::is_needed_after(int error) {
  // E2BIG: a clone3 that does not know set_tid. EPERM is what policies say that were written before clone3.
  if (error != ENOSYS && error != E2BIG && error != EPERM) {
    return false;
  }
  needed_ = ::access(path, W_OK) == 0;
  return needed_;
}

base::Fd LastPid::open() { return base::Fd(check(::open(path, O_WRONLY | O_CLOEXEC), "open", path)); }

pid_t LastPid::fork(pid_t pid, std::uint64_t flags, int exit_signal, const std::string& who) {
  int* own_tid = nullptr;
  ::prctl(PR_GET_TID_ADDRESS, &own_tid, 0, 0, 0);
  const auto all_flags = flags | static_cast<std::uint64_t>(exit_signal) |
                         (own_tid != nullptr ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0);
  const auto file = open();
  for (int attempt = 0; attempt < most_attempts && ::kill(pid, 0) < 0; ++attempt) {
    const Locked locked(file);
    const auto before = std::to_string(pid - 1);
    check(::pwrite(file.get(), before.data(), before.size(), 0), "write", path);
    const auto born = static_cast<pid_t>(check(::syscall(SYS_clone, all_flags, 0, 0, own_tid, 0), "make process", who));
    if (born == 0) {
      if (::syscall(SYS_getpid) != pid) {
        ::_exit(0);
      }
      return 0;
    }
    if (born == pid) {
      return born;
    }
    if ((flags & CLONE_PARENT) != 0) {
      break;  // not ours to reap
    }
    ::waitpid(born, nullptr, __WALL);
  }
  throw pid_is_taken(pid, who);
}

}  // namespace criu::task
