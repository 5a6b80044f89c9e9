// SPDX-License-Identifier: GPL-2.0-only
// Actions, masks, and signals that wait.
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <csignal>
#include <vector>

#include "harness/live.hpp"

using namespace live;

namespace {

volatile sig_atomic_t seen = 0;
volatile sig_atomic_t on_other_stack = 0;
std::vector<char> other_stack;

void count(int /*signal*/) { seen = seen + 1; }

void look_at_stack(int /*signal*/) {
  const char here = 0;
  on_other_stack = &here >= other_stack.data() && &here < other_stack.data() + other_stack.size();
}

void handle(int signal, void (*handler)(int), int flags = 0) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  ::sigaddset(&action.sa_mask, SIGWINCH);
  REQUIRE(::sigaction(signal, &action, nullptr) == 0);
}

}  // namespace

LIVE_TEST("signals: actions, their masks and flags") {
  handle(SIGHUP, count, SA_RESTART | SA_NODEFER);
  handle(SIGPIPE, SIG_IGN);
  handle(SIGRTMAX, count, SA_RESETHAND);
  checkpoint_here();
  struct sigaction action {};
  CHECK_EQ(::sigaction(SIGHUP, nullptr, &action), 0);
  CHECK(action.sa_handler == count);
  CHECK_EQ(action.sa_flags & (SA_RESTART | SA_NODEFER | SA_RESETHAND), SA_RESTART | SA_NODEFER);
  CHECK_EQ(::sigismember(&action.sa_mask, SIGWINCH), 1);
  CHECK_EQ(::sigaction(SIGPIPE, nullptr, &action), 0);
  CHECK(action.sa_handler == SIG_IGN);
  ::raise(SIGHUP);
  ::raise(SIGRTMAX);
  CHECK_EQ(seen, 2);
  CHECK_EQ(::sigaction(SIGRTMAX, nullptr, &action), 0);
  CHECK(action.sa_handler == SIG_DFL);
}

LIVE_TEST("signals: the mask") {
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGTERM);
  ::sigaddset(&mask, SIGRTMAX);
  REQUIRE(::sigprocmask(SIG_BLOCK, &mask, nullptr) == 0);
  checkpoint_here();
  sigset_t now;
  CHECK_EQ(::sigprocmask(SIG_BLOCK, nullptr, &now), 0);
  CHECK_EQ(::sigismember(&now, SIGTERM), 1);
  CHECK_EQ(::sigismember(&now, SIGRTMAX), 1);
  CHECK_EQ(::sigismember(&now, SIGHUP), 0);
}

LIVE_TEST("signals: pending ones with their values, in order") {
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGUSR2);
  ::sigaddset(&mask, SIGRTMIN + 2);
  REQUIRE(::sigprocmask(SIG_BLOCK, &mask, nullptr) == 0);
  REQUIRE(::kill(::getpid(), SIGUSR2) == 0);
  for (int value = 1; value <= 3; ++value) {
    REQUIRE(::sigqueue(::getpid(), SIGRTMIN + 2, sigval{.sival_int = value}) == 0);
  }
  checkpoint_here();
  siginfo_t info{};
  const timespec now{};
  CHECK_EQ(::sigtimedwait(&mask, &info, &now), SIGUSR2);
  CHECK_EQ(info.si_code, SI_USER);
  CHECK_EQ(info.si_pid, ::getpid());
  for (int value = 1; value <= 3; ++value) {
    CHECK_EQ(::sigtimedwait(&mask, &info, &now), SIGRTMIN + 2);
    CHECK_EQ(info.si_code, SI_QUEUE);
    CHECK_EQ(info.si_value.sival_int, value);
  }
  CHECK_EQ(::sigtimedwait(&mask, &info, &now), -1);
}

LIVE_TEST("signals: the alternate stack") {
  other_stack.resize(1 << 16);
  stack_t stack{};
  stack.ss_sp = other_stack.data();
  stack.ss_size = other_stack.size();
  REQUIRE(::sigaltstack(&stack, nullptr) == 0);
  handle(SIGHUP, look_at_stack, SA_ONSTACK);
  checkpoint_here();
  ::raise(SIGHUP);
  CHECK_EQ(on_other_stack, 1);
}

LIVE_TEST("signals: a checkpoint inside a handler") {
  handle(SIGHUP, [](int) {
    checkpoint_here();
    seen = 1;
  });
  volatile int before = 7;
  ::raise(SIGHUP);
  CHECK_EQ(seen, 1);
  CHECK_EQ(before, 7);
}
