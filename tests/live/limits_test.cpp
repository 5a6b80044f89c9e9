// SPDX-License-Identifier: GPL-2.0-only
// Limits, OOM score, personality, scheduling.
#include <sched.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>
#include <string>

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

LIVE_TEST("scheduling: io priority") {
  // <linux/ioprio.h> of some versions is not C++.
  constexpr int of_process = 1;
  constexpr int best_effort = 2;
  constexpr int wanted = best_effort << 13 | 6;
  REQUIRE(::syscall(SYS_ioprio_set, of_process, 0, wanted) == 0);
  checkpoint_here();
  CHECK_EQ(::syscall(SYS_ioprio_get, of_process, 0), wanted);
}
