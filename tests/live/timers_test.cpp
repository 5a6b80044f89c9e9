// SPDX-License-Identifier: GPL-2.0-only
// Interval timers and POSIX timers of every clock and kind of notice.
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <csignal>
#include <ctime>

#include "harness/live.hpp"

using namespace live;

namespace {

constexpr long hour = 3600;

volatile sig_atomic_t rang = 0;
void ring(int /*signal*/) { rang = rang + 1; }

timer_t make_timer(clockid_t clock, int notify, int signal) {
  sigevent event{};
  event.sigev_notify = notify;
  event.sigev_signo = signal;
  event.sigev_value.sival_int = 4711;
  timer_t timer{};
  REQUIRE(::timer_create(clock, &event, &timer) == 0);
  return timer;
}

void check_left(timer_t timer) {
  itimerspec left{};
  CHECK_EQ(::timer_gettime(timer, &left), 0);
  CHECK(left.it_value.tv_sec > hour - 300 && left.it_value.tv_sec <= hour);
  CHECK_EQ(left.it_interval.tv_sec, 5);
  CHECK_EQ(left.it_interval.tv_nsec, 6);
}

}  // namespace

LIVE_TEST("timers: interval timers of all three kinds") {
  for (const auto which : {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF}) {
    const itimerval value{{5, 6}, {hour + which, 0}};
    REQUIRE(::setitimer(which, &value, nullptr) == 0);
  }
  checkpoint_here();
  for (const auto which : {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF}) {
    itimerval left{};
    CHECK_EQ(::getitimer(which, &left), 0);
    CHECK(left.it_value.tv_sec > hour - 300 && left.it_value.tv_sec <= hour + which);
    CHECK_EQ(left.it_interval.tv_sec, 5);
    CHECK_EQ(left.it_interval.tv_usec, 6);
  }
}

LIVE_TEST("timers: an interval timer rings afterwards") {
  std::signal(SIGALRM, ring);
  const itimerval value{{0, 0}, {0, 400000}};
  sigset_t mask;
  sigset_t old;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGALRM);
  REQUIRE(::sigprocmask(SIG_BLOCK, &mask, &old) == 0);
  REQUIRE(::setitimer(ITIMER_REAL, &value, nullptr) == 0);
  checkpoint_here();
  while (rang == 0) {
    ::sigsuspend(&old);
  }
  CHECK_EQ(rang, 1);
}

LIVE_TEST("timers: POSIX timers on several clocks, with their ids") {
  const itimerspec value{{5, 6}, {hour, 0}};
  const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_PROCESS_CPUTIME_ID};
  timer_t timers[4];
  // A gap in the ids, which must stay one.
  const timer_t gap = make_timer(CLOCK_MONOTONIC, SIGEV_NONE, 0);
  for (int i = 0; i < 4; ++i) {
    timers[i] = make_timer(clocks[i], SIGEV_SIGNAL, SIGRTMIN + 4);
    REQUIRE(::timer_settime(timers[i], 0, &value, nullptr) == 0);
  }
  REQUIRE(::timer_delete(gap) == 0);
  checkpoint_here();
  for (const timer_t timer : timers) {
    check_left(timer);
  }
  CHECK(read_text("/proc/self/timers").find("notify: signal/pid." + std::to_string(::getpid())) != std::string::npos);
}

LIVE_TEST("timers: POSIX timers without notice, and for one thread") {
  const itimerspec value{{5, 6}, {hour, 0}};
  const timer_t silent = make_timer(CLOCK_MONOTONIC, SIGEV_NONE, 0);
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGRTMIN + 4;
  event._sigev_un._tid = static_cast<pid_t>(::syscall(SYS_gettid));
  timer_t mine{};
  REQUIRE(::timer_create(CLOCK_MONOTONIC, &event, &mine) == 0);
  for (const timer_t timer : {silent, mine}) {
    REQUIRE(::timer_settime(timer, 0, &value, nullptr) == 0);
  }
  checkpoint_here();
  check_left(silent);
  check_left(mine);
}

LIVE_TEST("timers: a POSIX timer rings afterwards, with its value") {
  const int signal = SIGRTMIN + 4;
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, signal);
  REQUIRE(::sigprocmask(SIG_BLOCK, &mask, nullptr) == 0);
  const timer_t timer = make_timer(CLOCK_MONOTONIC, SIGEV_SIGNAL, signal);
  const itimerspec value{{0, 0}, {0, 400000000}};
  REQUIRE(::timer_settime(timer, 0, &value, nullptr) == 0);
  checkpoint_here();
  siginfo_t info{};
  const timespec limit{10, 0};
  CHECK_EQ(::sigtimedwait(&mask, &info, &limit), signal);
  CHECK_EQ(info.si_code, SI_TIMER);
  CHECK_EQ(info.si_value.sival_int, 4711);
}
