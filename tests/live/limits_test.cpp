// SPDX-License-Identifier: GPL-2.0-only
// Limits, OOM score, personality, scheduling.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "harness/live.hpp"

using namespace live;

LIVE_TEST("limits: soft and hard ones") {
  const rlimit files{100, 200};
  const rlimit core{0, 4096};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &files) == 0);
  REQUIRE(::setrlimit(RLIMIT_CORE, &core) == 0);
  checkpoint_here();
  rlimit now{};
  CHECK_EQ(::getrlimit(RLIMIT_NOFILE, &now), 0);
  CHECK_EQ(now.rlim_cur, 100U);
  CHECK_EQ(now.rlim_max, 200U);
  CHECK_EQ(::getrlimit(RLIMIT_CORE, &now), 0);
  CHECK_EQ(now.rlim_cur, 0U);
  CHECK_EQ(now.rlim_max, 4096U);
}

LIVE_TEST("limits: every one of them") {
  // Two different values each, below what this process has; the soft ones of memory must leave room for what it does.
  constexpr rlim_t much = 1ULL << 40;
  for (int resource = 0; resource < static_cast<int>(RLIM_NLIMITS); ++resource) {
    rlimit limit{};
    REQUIRE(::getrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0);
    const auto hard = std::min(limit.rlim_max, much + static_cast<rlim_t>(resource));
    limit = {hard - hard / 4, hard};
    REQUIRE(::setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0);
  }
  checkpoint_here();
  CHECK(read_text("/proc/self/limits").find(std::to_string(much + RLIMIT_DATA)) != std::string::npos);
}

LIVE_TEST("limits: lower than what the process has") {
  const int high = ::fcntl(0, F_DUPFD, 300);
  REQUIRE(high == 300);
  const int file = ::open(scratch("large").c_str(), O_RDWR | O_CREAT, 0644);
  const std::string text(200000, 'x');
  REQUIRE(::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  REQUIRE(::unlink(scratch("large").c_str()) == 0);
  const std::pair<int, rlim_t> low[] = {{RLIMIT_NOFILE, 10},    {RLIMIT_FSIZE, 1000}, {RLIMIT_STACK, 8192},
                                        {RLIMIT_MEMLOCK, 4096}, {RLIMIT_DATA, 4096},  {RLIMIT_SIGPENDING, 0},
                                        {RLIMIT_NPROC, 0}};
  char* locked =
      static_cast<char*>(::mmap(nullptr, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(locked != MAP_FAILED && ::mlock(locked, 1 << 16) == 0);
  for (const auto& [resource, value] : low) {
    const rlimit limit{value, value};
    REQUIRE(::setrlimit(static_cast<__rlimit_resource>(resource), &limit) == 0);
  }
  checkpoint_here();
  for (const auto& [resource, value] : low) {
    rlimit now{};
    CHECK_EQ(::getrlimit(static_cast<__rlimit_resource>(resource), &now), 0);
    CHECK_EQ(now.rlim_cur, value);
    CHECK_EQ(now.rlim_max, value);
  }
  CHECK(::fcntl(high, F_GETFD) >= 0);
  CHECK_EQ(::fcntl(high, F_DUPFD, 10), -1);
  CHECK_EQ(::lseek(file, 0, SEEK_END), 200000);
}

LIVE_TEST("limits: OOM score adjustment") {
  std::ofstream("/proc/self/oom_score_adj") << 321;
  checkpoint_here();
  CHECK_EQ(read_text("/proc/self/oom_score_adj"), "321\n");
}

LIVE_TEST("limits: personality") {
  REQUIRE(::personality(ADDR_NO_RANDOMIZE) >= 0);
  checkpoint_here();
  CHECK_EQ(::personality(0xffffffff), ADDR_NO_RANDOMIZE);
}

LIVE_TEST("scheduling: nice") {
  REQUIRE(::setpriority(PRIO_PROCESS, 0, 7) == 0);
  checkpoint_here();
  CHECK_EQ(::getpriority(PRIO_PROCESS, 0), 7);
}

LIVE_TEST("scheduling: the batch and idle policies") {
  const sched_param none{};
  REQUIRE(::sched_setscheduler(0, SCHED_BATCH, &none) == 0);
  Child idle([] {
    const sched_param zero{};
    REQUIRE(::sched_setscheduler(0, SCHED_IDLE, &zero) == 0);
    checkpoint_here();
    CHECK_EQ(::sched_getscheduler(0), SCHED_IDLE);
  });
  checkpoint_here();
  CHECK_EQ(::sched_getscheduler(0), SCHED_BATCH);
  CHECK_EQ(idle.finish(), 0);
}

LIVE_TEST("scheduling: a real-time policy with its priority") {
  const sched_param priority{.sched_priority = 3};
  if (::sched_setscheduler(0, SCHED_RR, &priority) != 0) {
    skip("real-time scheduling is not allowed here");
  }
  checkpoint_here();
  sched_param now{};
  CHECK_EQ(::sched_getscheduler(0), SCHED_RR);
  CHECK_EQ(::sched_getparam(0, &now), 0);
  CHECK_EQ(now.sched_priority, 3);
}

LIVE_TEST("scheduling: single threads") {
  constexpr int of_process = 1;
  constexpr int idle_io = 3 << 13;
  const int nice = ::getpriority(PRIO_PROCESS, 0);
  std::atomic<int> ready{0};
  std::atomic<int> go{0};
  std::atomic<int> right{0};
  std::thread thread([&] {
    const sched_param none{};
    const auto me = static_cast<id_t>(::syscall(SYS_gettid));
    const bool set = ::sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &none) == 0 &&
                     ::setpriority(PRIO_PROCESS, me, 17) == 0 &&
                     ::syscall(SYS_ioprio_set, of_process, 0, idle_io) == 0 && ::prctl(PR_SET_TIMERSLACK, 7777) == 0;
    ready = set ? 1 : -1;
    while (go == 0) {
      ::sched_yield();
    }
    right = ::sched_getscheduler(0) == (SCHED_BATCH | SCHED_RESET_ON_FORK) && ::getpriority(PRIO_PROCESS, me) == 17 &&
            ::syscall(SYS_ioprio_get, of_process, 0) == idle_io && ::prctl(PR_GET_TIMERSLACK) == 7777;
  });
  await([&] { return ready != 0; }, "the thread is set");
  REQUIRE(ready == 1);
  checkpoint_here();
  go = 1;
  thread.join();
  CHECK_EQ(right.load(), 1);
  CHECK_EQ(::sched_getscheduler(0), SCHED_OTHER);
  CHECK_EQ(::getpriority(PRIO_PROCESS, 0), nice);
  CHECK(::prctl(PR_GET_TIMERSLACK) != 7777);
}

LIVE_TEST("scheduling: a deadline is refused by name", {.dump_fails = "scheduling policy 6"}) {
  struct {
    std::uint32_t size, policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime, deadline, period;
  } attributes{sizeof attributes, 6, 0, 0, 0, 1000000, 100000000, 100000000};
  if (::syscall(SYS_sched_setattr, 0, &attributes, 0) != 0) {
    skip("deadline scheduling is not allowed here");
  }
  checkpoint_here();
  CHECK_EQ(::sched_getscheduler(0), 6);
}

LIVE_TEST("scheduling: io priority") {
  // <linux/ioprio.h> of some versions is not C++.
  constexpr int of_process = 1;
  constexpr int best_effort = 2;
  constexpr int wanted = best_effort << 13 | 6;
  REQUIRE(::syscall(SYS_ioprio_set, of_process, 0, wanted) == 0);
  checkpoint_here();
  CHECK_EQ(::syscall(SYS_ioprio_get, of_process, 0), wanted);
}
