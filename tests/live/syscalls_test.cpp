// SPDX-License-Identifier: GPL-2.0-only
// System calls that were asleep go on, and do not return EINTR where the kernel would not have.
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <new>

#include "harness/live.hpp"

using namespace live;

namespace {

// What a child found when its system call returned, in memory that parent and child share.
struct Result {
  std::atomic<long> value{-1000};
  std::atomic<int> error{0};
  std::atomic<std::uint32_t> word{0};
};

Result* shared_result() {
  void* at = ::mmap(nullptr, sizeof(Result), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(at != MAP_FAILED);
  return new (at) Result;
}

// A child asleep in a system call; the body makes the call and passes on what it returned.
Child asleep(Result* result, long number, const std::function<long()>& body) {
  return Child(
      [=] {
        errno = 0;
        const auto value = body();
        result->error = errno;
        result->value = value;
      },
      [number](pid_t pid) { await_syscall(pid, number); });
}

double now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

// sigwaitinfo and epoll_wait are among the calls that signal(7) says a stop and continue interrupts, with no handler
// anywhere: EINTR is right for them, and who uses them calls again.
long again_when_interrupted(const std::function<long()>& call) {
  long value = 0;
  do {
    value = call();
  } while (value < 0 && errno == EINTR);
  return value;
}

// Asleep calls of the three sleeping kinds last this long.
constexpr long long_enough_ns = 700'000'000;

}  // namespace

LIVE_TEST("syscalls: nanosleep sleeps its time") {
  auto* result = shared_result();
  const double start = now();
  auto child = asleep(result, SYS_clock_nanosleep, [] {
    const timespec time{0, long_enough_ns};
    return ::nanosleep(&time, nullptr);
  });
  checkpoint_here();
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(result->value.load(), 0);
  CHECK(now() - start >= 0.7);
}

LIVE_TEST("syscalls: clock_nanosleep until a moment") {
  auto* result = shared_result();
  timespec until{};
  REQUIRE(::clock_gettime(CLOCK_MONOTONIC, &until) == 0);
  until.tv_sec += 1;
  auto child = asleep(result, SYS_clock_nanosleep,
                      [=] { return ::clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr); });
  checkpoint_here();
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(result->value.load(), 0);
}

LIVE_TEST("syscalls: a futex waits on, without and with a timeout") {
  auto* plain = shared_result();
  auto* timed = shared_result();
  auto forever =
      asleep(plain, SYS_futex, [=] { return ::syscall(SYS_futex, &plain->word, FUTEX_WAIT, 0, nullptr, nullptr, 0); });
  auto limited = asleep(timed, SYS_futex, [=] {
    const timespec limit{0, long_enough_ns};
    return ::syscall(SYS_futex, &timed->word, FUTEX_WAIT, 0, &limit, nullptr, 0);
  });
  checkpoint_here();
  CHECK_EQ(limited.join(), 0);
  CHECK_EQ(timed->value.load(), -1);
  CHECK_EQ(timed->error.load(), ETIMEDOUT);
  await([&] { return ::syscall(SYS_futex, &plain->word, FUTEX_WAKE, 1, nullptr, nullptr, 0) == 1; }, "it waits");
  CHECK_EQ(forever.join(), 0);
  CHECK_EQ(plain->value.load(), 0);
}

LIVE_TEST("syscalls: poll with a timeout") {
  auto* result = shared_result();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  auto child = asleep(result, SYS_poll, [&] {
    pollfd fd{ends[0], POLLIN, 0};
    return static_cast<long>(::poll(&fd, 1, 700));
  });
  checkpoint_here();
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(result->value.load(), 0);
  CHECK_EQ(result->error.load(), 0);
}

LIVE_TEST("syscalls: poll without end") {
  auto* result = shared_result();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  auto child = asleep(result, SYS_poll, [&] {
    pollfd fd{ends[0], POLLIN, 0};
    return static_cast<long>(::poll(&fd, 1, -1));
  });
  checkpoint_here();
  CHECK_EQ(::write(ends[1], "x", 1), 1);
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(result->value.load(), 1);
}

LIVE_TEST("syscalls: select") {
  auto* result = shared_result();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  auto child = asleep(result, SYS_pselect6, [&] {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    return static_cast<long>(::select(ends[0] + 1, &set, nullptr, nullptr, nullptr));
  });
  checkpoint_here();
  CHECK_EQ(::write(ends[1], "x", 1), 1);
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(result->value.load(), 1);
}

LIVE_TEST("syscalls: read from a pipe") {
  auto* result = shared_result();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  auto child = asleep(result, SYS_read, [&] {
    char c = 0;
    return static_cast<long>(::read(ends[0], &c, 1));
  });
  checkpoint_here();
  CHECK_EQ(::write(ends[1], "x", 1), 1);
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(result->value.load(), 1);
}

LIVE_TEST("syscalls: write to a full pipe") {
  auto* result = shared_result();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  // A write of which a part is done returns that part when it is interrupted, on any kernel and under any tracer; the
  // rest is written as every program does it.
  auto child = asleep(result, SYS_write, [&] {
    static char block[100000];
    long done = 0;
    while (done < 100000) {
      const auto part = ::write(ends[1], block, static_cast<std::size_t>(100000 - done));
      if (part < 0) {
        return static_cast<long>(part);
      }
      done += part;
    }
    return done;
  });
  checkpoint_here();
  static char block[100000];
  long got = 0;
  while (got < 100000) {
    const auto part = ::read(ends[0], block, sizeof block);
    REQUIRE(part > 0);
    got += part;
  }
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(result->value.load(), 100000);
}

LIVE_TEST("syscalls: wait for a child") {
  auto* result = shared_result();
  Child waiter(
      [=] {
        Child inner([] { checkpoint_here(); });
        result->word = static_cast<std::uint32_t>(inner.pid());
        int status = 0;
        const auto pid = ::waitpid(inner.pid(), &status, 0);
        result->value = pid == inner.pid() && status == 0 ? 0 : errno;
      },
      [](pid_t pid) { await_syscall(pid, SYS_wait4); });
  checkpoint_here();
  CHECK_EQ(::kill(static_cast<pid_t>(result->word.load()), SIGUSR1), 0);
  CHECK_EQ(waiter.join(), 0);
  CHECK_EQ(result->value.load(), 0);
}

LIVE_TEST("syscalls: pause") {
  auto* result = shared_result();
  auto child = asleep(result, SYS_pause, [] {
    ::signal(SIGUSR2, [](int) {});
    return static_cast<long>(::pause());
  });
  checkpoint_here();
  CHECK_EQ(result->value.load(), -1000);
  CHECK_EQ(::kill(child.pid(), SIGUSR2), 0);
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(result->value.load(), -1);
  CHECK_EQ(result->error.load(), EINTR);
}

LIVE_TEST("syscalls: sigsuspend keeps its mask") {
  auto* result = shared_result();
  auto child = asleep(result, SYS_rt_sigsuspend, [] {
    ::signal(SIGUSR2, [](int) {});
    sigset_t mask;
    ::sigemptyset(&mask);
    ::sigaddset(&mask, SIGUSR2);
    ::sigprocmask(SIG_BLOCK, &mask, nullptr);
    ::sigfillset(&mask);
    ::sigdelset(&mask, SIGUSR2);
    const auto value = ::sigsuspend(&mask);
    sigset_t after;
    ::sigprocmask(SIG_BLOCK, nullptr, &after);
    return ::sigismember(&after, SIGUSR2) == 1 && ::sigismember(&after, SIGTERM) == 0 ? value : -2L;
  });
  checkpoint_here();
  CHECK_EQ(::kill(child.pid(), SIGTERM), 0);  // blocked while it waits, and ends it once it doesn't
  CHECK_EQ(result->value.load(), -1000);
  CHECK_EQ(::kill(child.pid(), SIGUSR2), 0);
  const int status = child.join();
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGTERM);
}

LIVE_TEST("syscalls: sigwaitinfo, which a stop may interrupt") {
  auto* result = shared_result();
  auto child = asleep(result, SYS_rt_sigtimedwait, [] {
    sigset_t mask;
    ::sigemptyset(&mask);
    ::sigaddset(&mask, SIGUSR2);
    ::sigprocmask(SIG_BLOCK, &mask, nullptr);
    return again_when_interrupted([&] { return static_cast<long>(::sigwaitinfo(&mask, nullptr)); });
  });
  checkpoint_here();
  CHECK_EQ(::kill(child.pid(), SIGUSR2), 0);
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(result->value.load(), SIGUSR2);
}

LIVE_TEST("syscalls: epoll_wait, which a stop may interrupt") {
  auto* result = shared_result();
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  auto child = asleep(result, SYS_epoll_wait, [&] {
    const int epoll = ::epoll_create1(0);
    epoll_event event{};
    event.events = EPOLLIN;
    ::epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event);
    return again_when_interrupted([&] { return static_cast<long>(::epoll_wait(epoll, &event, 1, -1)); });
  });
  checkpoint_here();
  CHECK_EQ(::write(ends[1], "x", 1), 1);
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(result->value.load(), 1);
}
