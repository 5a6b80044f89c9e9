// SPDX-License-Identifier: GPL-2.0-only
#include "victim.hpp"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <stdexcept>

namespace test {

Victim::Victim(const std::function<int(Board&)>& body) {
  void* shared = ::mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) {
    throw std::runtime_error("mmap");
  }
  board_ = new (shared) Board{};
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    ::setsid();
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::_exit(::getppid() == parent ? body(*board_) : 99);
  }
}

Victim::~Victim() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::munmap(board_, sizeof(Board));
}

void Victim::wait_ready(int count) const {
  if (!eventually([&] { return board_->ready.load() >= count; })) {
    throw std::runtime_error("the victim did not get ready");
  }
}

void Victim::wait_blocked_in(long number, pid_t tid) const {
  const std::string name = tid == 0 ? "syscall" : "task/" + std::to_string(tid) + "/syscall";
  const std::string prefix = std::to_string(number) + " ";
  if (!eventually([&] { return proc_text(pid_, name).rfind(prefix, 0) == 0; })) {
    throw std::runtime_error("the victim does not wait in call " + prefix + "but: " + proc_text(pid_, name));
  }
}

int Victim::join() {
  int status = 0;
  const pid_t got = ::waitpid(pid_, &status, 0);
  pid_ = -1;
  if (got < 0) {
    throw std::runtime_error("the victim is no child of the test any more");
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::string proc_text(pid_t pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/" + name);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string status_line(pid_t pid, const std::string& key) {
  const std::string text = "\n" + proc_text(pid, "status");
  const std::size_t at = text.find("\n" + key + ":\t");
  if (at == std::string::npos) {
    return {};
  }
  const std::size_t begin = at + key.size() + 3;
  return text.substr(begin, text.find('\n', begin) - begin);
}

std::string maps(pid_t pid) { return proc_text(pid, "maps"); }

long now_ms() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000 + time.tv_nsec / 1'000'000;
}

bool eventually(const std::function<bool()>& condition) {
  const long limit = now_ms() + 5'000;
  while (!condition()) {
    if (now_ms() > limit) {
      return false;
    }
    ::sched_yield();
  }
  return true;
}

}  // namespace test
