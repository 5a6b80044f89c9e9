// SPDX-License-Identifier: GPL-2.0-only
// Seccomp: strict, filters, and filters of single threads.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <thread>

#include "harness/live.hpp"

using namespace live;

namespace {

// Makes one system call of the calling thread fail with an errno.
long forbid(long number, unsigned error, unsigned flags = 0) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(number), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{sizeof code / sizeof code[0], code};
  return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

long error_of(long number) {
  errno = 0;
  ::syscall(number);
  return errno;
}

}  // namespace

LIVE_TEST("seccomp: a chain of filters") {
  REQUIRE(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(forbid(SYS_sync, 71) == 0);
  REQUIRE(forbid(SYS_vhangup, 72) == 0);
  checkpoint_here();
  CHECK_EQ(error_of(SYS_sync), 71);
  CHECK_EQ(error_of(SYS_vhangup), 72);
  CHECK_EQ(status_field("Seccomp"), "2");
}

LIVE_TEST("seccomp: filters inherited by a child, which adds its own") {
  REQUIRE(forbid(SYS_sync, 71) == 0);
  Child child([] {
    REQUIRE(forbid(SYS_vhangup, 72) == 0);
    checkpoint_here();
    CHECK_EQ(error_of(SYS_sync), 71);
    CHECK_EQ(error_of(SYS_vhangup), 72);
  });
  REQUIRE(forbid(SYS_acct, 73) == 0);
  checkpoint_here();
  CHECK_EQ(error_of(SYS_sync), 71);
  CHECK(error_of(SYS_vhangup) != 72);
  CHECK_EQ(error_of(SYS_acct), 73);
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("seccomp: a filter of one thread") {
  std::atomic<int> ready{0};
  std::atomic<int> go{0};
  std::atomic<long> error{0};
  std::thread thread([&] {
    ready = forbid(SYS_vhangup, 74) == 0 ? 1 : -1;
    while (go == 0) {
      ::sched_yield();
    }
    error = error_of(SYS_vhangup);
  });
  await([&] { return ready != 0; }, "the thread has its filter");
  REQUIRE(ready == 1);
  checkpoint_here();
  go = 1;
  thread.join();
  CHECK_EQ(error.load(), 74);
  CHECK_EQ(status_field("Seccomp"), "0");
}

LIVE_TEST("seccomp: strict mode") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  Child child(
      [&] {
        REQUIRE(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0);
        char c = 0;
        const auto got = ::read(ends[0], &c, 1);
        ::syscall(SYS_exit, got == 1 ? 0 : 1);
      },
      [](pid_t pid) { await_syscall(pid, SYS_read); });
  checkpoint_here();
  CHECK_EQ(status_field("Seccomp", child.pid()), "1");
  CHECK_EQ(::write(ends[1], "x", 1), 1);
  CHECK_EQ(child.join(), 0);
}

LIVE_TEST("seccomp: chains that threads share are shared again") {
  std::atomic<int> go{0};
  std::atomic<int> ready{0};
  std::atomic<long> error{0};
  std::atomic<long> own{0};
  const auto body = [&](bool adds) {
    if (adds && forbid(SYS_acct, 73) != 0) {
      ready = -10;
    }
    ++ready;
    while (go == 0) {
      ::sched_yield();
    }
    error += error_of(SYS_vhangup);
    if (adds) {
      own = error_of(SYS_acct);
    }
  };
  std::thread first(body, false);
  std::thread second(body, false);
  await([&] { return ready == 2; }, "both threads run");
  REQUIRE(forbid(SYS_sync, 71, SECCOMP_FILTER_FLAG_TSYNC) == 0);
  REQUIRE(forbid(SYS_swapoff, 72, SECCOMP_FILTER_FLAG_TSYNC) == 0);
  checkpoint_here();
  // The kernel gives a filter to threads only whose own are ancestors of the caller's: the very same, not equal ones.
  CHECK_EQ(forbid(SYS_vhangup, 74, SECCOMP_FILTER_FLAG_TSYNC), 0);
  CHECK_EQ(error_of(SYS_sync), 71);
  CHECK_EQ(error_of(SYS_swapoff), 72);
  go = 1;
  first.join();
  second.join();
  CHECK_EQ(error.load(), 2 * 74);
}

LIVE_TEST("seccomp: a shared chain, and what one of the threads added to it") {
  std::atomic<int> go{0};
  std::atomic<int> ready{0};
  std::atomic<long> found{0};
  REQUIRE(forbid(SYS_sync, 71) == 0);
  std::thread thread([&] {
    ready = forbid(SYS_acct, 73) == 0 ? 1 : -1;
    while (go == 0) {
      ::sched_yield();
    }
    found = error_of(SYS_sync) * 1000 + error_of(SYS_acct);
  });
  await([&] { return ready != 0; }, "the thread has its filter");
  REQUIRE(ready == 1);
  checkpoint_here();
  CHECK_EQ(error_of(SYS_sync), 71);
  CHECK(error_of(SYS_acct) != 73);
  go = 1;
  thread.join();
  CHECK_EQ(found.load(), 71073);
}

LIVE_TEST("seccomp: a filter from before the privileges were dropped") {
  REQUIRE(forbid(SYS_sync, 71) == 0);
  REQUIRE(::setresgid(1000, 1000, 1000) == 0);
  REQUIRE(::setresuid(1000, 1000, 1000) == 0);
  checkpoint_here();
  CHECK_EQ(error_of(SYS_sync), 71);
  CHECK_EQ(::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
  CHECK_EQ(::getuid(), 1000U);
}

LIVE_TEST("seccomp: all is forbidden but what the task does") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  Child child(
      [&] {
        sock_filter code[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 2, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit, 1, 0),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        sock_fprog program{sizeof code / sizeof code[0], code};
        REQUIRE(::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0);
        char c = 0;
        const auto got = ::syscall(SYS_read, ends[0], &c, 1);
        ::syscall(SYS_exit, got == 1 ? 0 : 1);
      },
      [](pid_t pid) { await_syscall(pid, SYS_read); });
  checkpoint_here();
  CHECK_EQ(::write(ends[1], "x", 1), 1);
  CHECK_EQ(child.join(), 0);
}
