// SPDX-License-Identifier: GPL-2.0-only
#include "own_pids.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "base/fd.hpp"

namespace cli {

namespace {

constexpr int failure = 1;

int complain(const char* what) {
  std::perror(what);
  return failure;
}

void let_go_of_terminal() {
  ::setsid();
  const base::Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    ::dup2(null.get(), fd);
  }
}

// Returns its exit status.
int live_as_init(bool detached, base::Fd& tell, const std::function<pid_t()>& restore,
                 const std::function<int()>& report) {
  if (!detached) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0 ||
      ::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) {
    return complain("--pidns: mount /proc");
  }
  pid_t root = 0;
  try {
    root = restore();
  } catch (...) {
    return report();
  }
  if (::write(tell.get(), "", 1) != 1) {
    return failure;
  }
  tell.reset();
  if (detached) {
    let_go_of_terminal();
  }
  for (pid_t ended = 0; ended != root;) {
    ended = ::waitpid(-1, nullptr, 0);
    if (ended < 0 && errno != EINTR) {
      break;
    }
  }
  return 0;
}

}  // namespace

int in_own_pids(bool detached, const std::function<pid_t()>& restore, const std::function<int()>& report) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return complain("--pidns: make a pipe");
  }
  const base::Fd told(ends[0]);
  base::Fd tell(ends[1]);
  if (::unshare(CLONE_NEWPID) != 0) {
    return complain("--pidns: make a pid namespace");
  }
  const pid_t init = ::fork();
  if (init < 0) {
    return complain("--pidns: fork");
  }
  if (init == 0) {
    std::exit(live_as_init(detached, tell, restore, report));
  }
  tell.reset();
  char done = 0;
  if (::read(told.get(), &done, 1) == 1 && detached) {
    return 0;
  }
  int status = 0;
  while (::waitpid(init, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : failure;
}

}  // namespace cli
