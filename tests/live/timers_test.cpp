// SPDX-License-Identifier: GPL-2.0-only
// Interval timers and POSIX timers of every clock and kind of notice.
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <ctime>
#include <thread>
#include <vector>

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

LIVE_TEST("timers: POSIX timers on the clocks of a processor, of TAI and that wake the machine") {
  const itimerspec value{{5, 6}, {hour, 0}};
  const clockid_t clocks[] = {CLOCK_TAI, CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM, CLOCK_THREAD_CPUTIME_ID};
  std::vector<timer_t> timers;
  for (const auto clock : clocks) {
    sigevent event{};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGRTMIN + 4;
    timer_t timer{};
    // A machine without a clock that could wake it has no alarms.
    if (::timer_create(clock, &event, &timer) == 0 && ::timer_settime(timer, 0, &value, nullptr) == 0) {
      timers.push_back(timer);
    }
  }
  REQUIRE(timers.size() >= 2);
  checkpoint_here();
  for (const timer_t timer : timers) {
    check_left(timer);
  }
}

LIVE_TEST("timers: a POSIX timer at a moment of a clock, one that runs on, and one for another thread") {
  std::atomic<pid_t> tid{0};
  std::atomic<int> got{0};
  const int signal = SIGRTMIN + 5;
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, signal);
  ::sigaddset(&mask, SIGRTMIN + 4);
  REQUIRE(::sigprocmask(SIG_BLOCK, &mask, nullptr) == 0);
  std::thread thread([&] {
    tid = static_cast<pid_t>(::syscall(SYS_gettid));
    sigset_t mine;
    ::sigemptyset(&mine);
    ::sigaddset(&mine, signal);
    siginfo_t info{};
    while (::sigwaitinfo(&mine, &info) < 0) {
    }
    got = info.si_value.sival_int;
  });
  await([&] { return tid != 0; }, "the thread runs");
  await_syscall(tid, SYS_rt_sigtimedwait);
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signal;
  event.sigev_value.sival_int = 12;
  event._sigev_un._tid = tid;
  timer_t for_thread{};
  REQUIRE(::timer_create(CLOCK_MONOTONIC, &event, &for_thread) == 0);
  const itimerspec soon{{0, 0}, {0, 500000000}};
  REQUIRE(::timer_settime(for_thread, 0, &soon, nullptr) == 0);
  timespec now{};
  REQUIRE(::clock_gettime(CLOCK_REALTIME, &now) == 0);
  const timer_t at_moment = make_timer(CLOCK_REALTIME, SIGEV_SIGNAL, SIGRTMIN + 4);
  const itimerspec moment{{5, 6}, {now.tv_sec + hour, 0}};
  REQUIRE(::timer_settime(at_moment, TIMER_ABSTIME, &moment, nullptr) == 0);
  const timer_t runs = make_timer(CLOCK_MONOTONIC, SIGEV_NONE, 0);
  const itimerspec often{{0, 10000000}, {0, 10000000}};
  REQUIRE(::timer_settime(runs, 0, &often, nullptr) == 0);
  checkpoint_here();
  check_left(at_moment);
  itimerspec left{};
  CHECK_EQ(::timer_gettime(runs, &left), 0);
  CHECK_EQ(left.it_interval.tv_nsec, 10000000);
  CHECK(left.it_value.tv_sec == 0 && left.it_value.tv_nsec > 0 && left.it_value.tv_nsec <= 10000000);
  thread.join();
  CHECK_EQ(got.load(), 12);
}

LIVE_TEST("timers: the signal of a timer that rang and was not looked at") {
  const int signal = SIGRTMIN + 4;
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, signal);
  REQUIRE(::sigprocmask(SIG_BLOCK, &mask, nullptr) == 0);
  const timer_t timer = make_timer(CLOCK_MONOTONIC, SIGEV_SIGNAL, signal);
  const itimerspec value{{0, 0}, {0, 1}};
  REQUIRE(::timer_settime(timer, 0, &value, nullptr) == 0);
  await(
      [&] {
        sigset_t pending;
        return ::sigpending(&pending) == 0 && ::sigismember(&pending, signal) == 1;
      },
      "the timer rings");
  checkpoint_here();
  siginfo_t info{};
  const timespec now{};
  CHECK_EQ(::sigtimedwait(&mask, &info, &now), signal);
  CHECK_EQ(info.si_code, SI_TIMER);
  CHECK_EQ(info.si_value.sival_int, 4711);
  CHECK_EQ(::sigtimedwait(&mask, &info, &now), -1);
}

LIVE_TEST("timers: six hundred of one process") {
  const itimerspec value{{5, 6}, {hour, 0}};
  std::vector<timer_t> timers;
  for (int i = 0; i < 600; ++i) {
    timers.push_back(make_timer(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 4));
    REQUIRE(::timer_settime(timers.back(), 0, &value, nullptr) == 0);
  }
  checkpoint_here();
  for (const timer_t timer : timers) {
    check_left(timer);
  }
}
