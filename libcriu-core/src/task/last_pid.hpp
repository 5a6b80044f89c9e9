// SPDX-License-Identifier: LGPL-2.1-only
// The older way to a certain pid, for where clone3 is not to be had (a seccomp policy that knows nothing of it): the
// kernel is told which pid it gave out last. Whoever else forks at that moment may get the one that was wanted.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "base/fd.hpp"
#include "task/tree.hpp"

namespace criu::task {

class LastPid {
 public:
  // Whether this process, or the one it was forked by, has found that it has to go this way.
  static bool needed() { return needed_; }
  // Whether clone3 failed because it is not to be had.
  static bool is_needed_after(int error);

  // The file that is written to, kept from others by a lock while a pid is chosen.
  static base::Fd open();

  // Like fork_with_pid.
  static pid_t fork(pid_t pid, std::uint64_t flags, int exit_signal, const std::string& who);

 private:
  static bool needed_;
};

}  // namespace criu::task
