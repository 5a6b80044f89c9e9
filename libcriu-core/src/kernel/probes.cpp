// SPDX-License-Identifier: LGPL-2.1-only
// What the questions share.
#include "kernel/probes.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "log.hpp"

namespace criu::kernel {

bool lacks(const char* what) {
  LOG_WARN("{}: {}", what, std::strerror(errno));
  return false;
}

bool in_child(bool (*question)()) {
  const pid_t pid = ::fork();
  if (pid < 0) {
    return lacks("fork a child to ask");
  }
  if (pid == 0) {
    ::_exit(question() ? 0 : 1);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) {
    LOG_WARN("the child that asked was killed by signal {}", WTERMSIG(status));
  }
  return status == 0;
}

Tracee::Tracee(bool (*prepare)()) {
  // The child tells that it is ready by closing its end.
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return;
  }
  base::Fd reader(ends[0]);
  base::Fd writer(ends[1]);
  pid_ = ::fork();
  if (pid_ == 0) {
    if (prepare != nullptr && !prepare()) {
      ::_exit(1);
    }
    writer.reset();
    for (;;) {
      ::pause();
    }
  }
  writer.reset();
  char nothing = 0;
  if (pid_ < 0 || ::read(reader.get(), &nothing, 1) != 0 || ::ptrace(PTRACE_SEIZE, pid_, nullptr, nullptr) != 0 ||
      ::ptrace(PTRACE_INTERRUPT, pid_, nullptr, nullptr) != 0) {
    return;
  }
  int status = 0;
  stopped_ = ::waitpid(pid_, &status, 0) == pid_ && WIFSTOPPED(status);
}

Tracee::~Tracee() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

std::string file_text(const std::string& path) {
  const base::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  char piece[4096];
  for (ssize_t got = 0; fd && (got = ::read(fd.get(), piece, sizeof piece)) > 0;) {
    text.append(piece, static_cast<std::size_t>(got));
  }
  return text;
}

std::string fdinfo(int fd) { return file_text("/proc/self/fdinfo/" + std::to_string(fd)); }

bool exists(const char* path) { return ::access(path, F_OK) == 0 || lacks(path); }

bool private_tmp() {
  return (::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
          ::mount("tmpfs", "/tmp", "tmpfs", 0, nullptr) == 0) ||
         lacks("a private mount namespace");
}

}  // namespace criu::kernel
