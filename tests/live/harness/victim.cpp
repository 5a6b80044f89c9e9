// SPDX-License-Identifier: GPL-2.0-only
// The side of the harness that runs in the process under test.
#include "victim.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "live.hpp"

namespace live {

namespace {

std::string directory;  // the test's own
pid_t main_pid = 0;
volatile sig_atomic_t told = 0;

void on_told(int /*signal*/) { told = 1; }

// One write a line: several processes may write at once. Opened anew each time, so that the file is no part of the
// state under test.
void append(const char* name, const std::string& line) {
  const int fd = ::open(scratch(name).c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd >= 0) {
    const auto text = line + "\n";
    [[maybe_unused]] const auto done = ::write(fd, text.data(), text.size());
    ::close(fd);
  }
}

void put(const char* name, const std::string& text) {
  append((std::string(name) + ".new").c_str(), text);
  ::rename(scratch(std::string(name) + ".new").c_str(), scratch(name).c_str());
}

bool failed() { return ::access(scratch("failures").c_str(), F_OK) == 0; }

std::vector<Test>& registered() {
  static std::vector<Test> all;
  return all;
}

}  // namespace

const std::vector<Test>& tests() { return registered(); }

Registrar::Registrar(void (*body)(), const char* name, Options options) {
  registered().push_back({name, body, std::move(options)});
}

Registrar::Registrar(const char* name, Program program, Options options) {
  registered().push_back({name, nullptr, std::move(options), std::move(program)});
}

std::string last_error() { return std::strerror(errno); }

bool in_container() { return ::getenv("LIVE_CONTAINER") != nullptr; }

bool in_user_namespace() { return in_container() && std::strcmp(::getenv("LIVE_CONTAINER"), "userns") == 0; }

std::string scratch(const std::string& name) { return directory + "/" + name; }

void fail(const char* file, int line, const std::string& text) {
  const char* slash = std::strrchr(file, '/');
  append("failures", std::string(slash != nullptr ? slash + 1 : file) + ":" + std::to_string(line) + ": " + text);
}

void give_up(const char* file, int line, const std::string& text) {
  fail(file, line, text);
  ::_exit(1);
}

void skip(const std::string& why) {
  put("skipped", why);
  ::_exit(0);
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string status_field(const std::string& name, pid_t pid) {
  std::ifstream file("/proc/" + (pid == 0 ? "thread-self" : std::to_string(pid)) + "/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(name + ":")) {
      const auto at = line.find_first_not_of(" \t", name.size() + 1);
      return at == std::string::npos ? std::string() : line.substr(at);
    }
  }
  return {};
}

char state_of(pid_t pid) {
  const auto text = status_field("State", pid);
  return text.empty() ? '-' : text[0];
}

void await(const std::function<bool()>& condition, const std::string& what) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) {
      give_up("await", 0, "this never came true: " + what);
    }
    ::sched_yield();
  }
}

void await_syscall(pid_t tid, long number) {
  const auto path = "/proc/" + std::to_string(tid) + "/syscall";
  await([&] { return state_of(tid) == 'S' && std::atol(read_text(path).c_str()) == number; },
        "task " + std::to_string(tid) + " sleeps in system call " + std::to_string(number));
}

void checkpoint_here() {
  if (::getpid() == main_pid) {
    put("ready", std::to_string(main_pid));
  }
  sigset_t mask;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
  ::sigdelset(&mask, SIGUSR1);
  // SIGUSR1 is blocked everywhere else, so it can't be lost between the test of `told` and the sleep.
  while (told == 0) {
    ::sigsuspend(&mask);
  }
  told = 0;
}

Child::Child(const std::function<void()>& body)
    : Child(body, [](pid_t pid) { await_syscall(pid, SYS_rt_sigsuspend); }) {}

Child::Child(const std::function<void()>& body, const std::function<void(pid_t)>& ready) : pid_(::fork()) {
  REQUIRE(pid_ >= 0);
  if (pid_ == 0) {
    body();
    ::_exit(failed() ? 1 : 0);
  }
  ready(pid_);
}

int Child::finish() {
  ::kill(pid_, SIGUSR1);
  return join();
}

int Child::join() {
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0) {
    if (errno != EINTR) {
      return -errno;
    }
  }
  return status;
}

void outside_ready() { put("outside-ready", "ready"); }

int run_outside(const Test& test, const std::string& scratch_directory) {
  directory = scratch_directory;
  main_pid = ::getpid();
  test.options.outside();
  return failed() ? 1 : 0;
}

int run_init(char** arguments) {
  const auto program = ::fork();
  if (program == 0) {
    ::setsid();
    ::execvp(arguments[0], arguments);
    ::_exit(127);
  }
  for (;;) {
    int status = 0;
    if (const auto ended = ::waitpid(-1, &status, 0); ended == program) {
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    } else if (ended < 0 && errno != EINTR) {
      return 126;
    }
  }
}

int run_victim(const Test& test, const std::string& scratch_directory) {
  directory = scratch_directory;
  main_pid = ::getpid();
  sigset_t usr1;
  ::sigemptyset(&usr1);
  ::sigaddset(&usr1, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &usr1, nullptr);
  struct sigaction action {};
  action.sa_handler = on_told;
  ::sigaction(SIGUSR1, &action, nullptr);
  if (in_user_namespace() && test.options.needs_true_root != nullptr) {
    skip(std::string("in a user namespace nobody may ") + test.options.needs_true_root);
  }
  test.body();
  return failed() ? 1 : 0;
}

}  // namespace live
