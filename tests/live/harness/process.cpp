// SPDX-License-Identifier: GPL-2.0-only
#include "process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.hpp"
#include "snapshot.hpp"

namespace live {

namespace {

int milliseconds_until(Clock::time_point until) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
  return static_cast<int>(std::clamp<long long>(left, 0, 3600000));
}

base::Fd open_pidfd(pid_t pid) { return base::Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))); }

[[noreturn]] void become(const std::vector<std::string>& arguments, const std::string& output) {
  ::setsid();
  const int in = ::open("/dev/null", O_RDONLY);
  const int out = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  ::dup2(in, STDIN_FILENO);
  ::dup2(out, STDOUT_FILENO);
  ::dup2(out, STDERR_FILENO);
  ::syscall(SYS_close_range, 3, ~0U, 0);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  for (int signal = 1; signal < NSIG; ++signal) {
    ::signal(signal, SIG_DFL);
  }
  ::umask(022);
  if (::chdir("/") != 0) {
    ::_exit(126);
  }
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const auto& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

}  // namespace

namespace {

bool mount_proc(const char* where) {
  return ::mount("proc", where, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) == 0;
}

// Runs it in a child; whether it said yes there.
bool in_child(const std::function<bool()>& action) {
  const auto pid = ::fork();
  if (pid == 0) {
    ::_exit(action() ? 0 : 1);
  }
  int status = 1;
  return pid > 0 && ::waitpid(pid, &status, 0) == pid && status == 0;
}

}  // namespace

bool make_mounts_private() { return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0; }

bool mount_own_proc() { return make_mounts_private() && mount_proc("/proc"); }

bool mount_proc_of(pid_t pid, const std::string& where) {
  return in_child([&] {
    const auto pidfd = open_pidfd(pid);
    // Only a child gets into a pid namespace.
    return ::setns(pidfd.get(), CLONE_NEWPID) == 0 && in_child([&] { return mount_proc(where.c_str()); });
  });
}

pid_t start(const std::vector<std::string>& arguments, const std::string& output, unsigned long namespaces,
            const std::function<bool()>& prepare) {
  const auto pid = static_cast<pid_t>(base::check(::syscall(SYS_clone, namespaces | SIGCHLD, 0, 0, 0, 0), "clone"));
  if (pid == 0) {
    if (prepare && !prepare()) {
      ::_exit(126);
    }
    become(arguments, output);
  }
  return pid;
}

std::optional<int> wait_for(pid_t pid, Clock::time_point until) {
  const auto pidfd = open_pidfd(pid);
  pollfd ended{pidfd.get(), POLLIN, 0};
  while (pidfd && ::poll(&ended, 1, milliseconds_until(until)) < 0 && errno == EINTR) {
  }
  int status = 0;
  const auto reaped = ::waitpid(pid, &status, WNOHANG);
  return reaped == pid ? std::optional(status) : std::nullopt;
}

std::optional<int> run(const std::vector<std::string>& arguments, const std::string& output,
                       std::chrono::seconds limit) {
  const auto pid = start(arguments, output);
  const auto status = wait_for(pid, Clock::now() + limit);
  if (!status) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  return status;
}

Arrival::Arrival(const std::string& directory)
    : directory_(directory), inotify_(base::check(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK), "inotify_init1")) {
  base::check(::inotify_add_watch(inotify_.get(), directory.c_str(), IN_MOVED_TO | IN_CLOSE_WRITE), "inotify_add_watch",
              directory);
}

bool Arrival::wait(const std::string& name, pid_t while_alive, Clock::time_point until) {
  const auto pidfd = open_pidfd(while_alive);
  const auto path = directory_ + "/" + name;
  // The watch was there first, so a file that comes between this test and the poll is not missed.
  while (::access(path.c_str(), F_OK) != 0) {
    std::array<pollfd, 2> events{pollfd{inotify_.get(), POLLIN, 0}, pollfd{pidfd.get(), POLLIN, 0}};
    const auto got = ::poll(events.data(), events.size(), milliseconds_until(until));
    if (got == 0 || !pidfd) {
      return false;
    }
    if ((events[1].revents & POLLIN) != 0) {
      return ::access(path.c_str(), F_OK) == 0;
    }
    std::array<char, 4096> ignored{};
    [[maybe_unused]] const auto drained = ::read(inotify_.get(), ignored.data(), ignored.size());
  }
  return true;
}

std::vector<pid_t> reap_all(std::chrono::seconds limit, pid_t except) {
  const auto until = Clock::now() + limit;
  while (true) {
    auto children = tree_of(::getpid());
    children.erase(children.begin());
    std::erase(children, except);
    if (children.empty()) {
      return {};
    }
    // Those of another parent end up here when that one ends; so wait for own children, one after the other.
    bool reaped = false;
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
      reaped = true;
    }
    if (reaped) {
      continue;
    }
    if (Clock::now() >= until) {
      return children;
    }
    const auto pidfd = open_pidfd(children.front());
    pollfd ended{pidfd.get(), POLLIN, 0};
    ::poll(&ended, 1, milliseconds_until(until));
  }
}

void kill_all_below() {
  // Again until nothing is left: a task may fork while the others are killed.
  do {
    for (const pid_t pid : tree_of(::getpid())) {
      if (pid != ::getpid()) {
        ::kill(pid, SIGKILL);
      }
    }
  } while (!reap_all(std::chrono::seconds(1)).empty());
}

std::string describe(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return std::string("killed by signal ") + std::to_string(WTERMSIG(wait_status));
  }
  return "exit status " + std::to_string(WEXITSTATUS(wait_status));
}

}  // namespace live
