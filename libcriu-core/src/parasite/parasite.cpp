// SPDX-License-Identifier: LGPL-2.1-only
// The parasite: asks, inside a task, what the kernel tells to nobody else. Freestanding; nothing but system calls.
#include <asm/unistd.h>
#include <linux/prctl.h>

#include <compel/parasite.hpp>

#include "parasite/protocol.hpp"

namespace criu::parasite {

namespace {

constexpr long get_mdwe = 66;                       // PR_GET_MDWE, 6.3
constexpr long membarrier_get_registrations = 512;  // MEMBARRIER_CMD_GET_REGISTRATIONS, 6.3
constexpr long arch_get_xcomp_perm = 0x1022;        // ARCH_GET_XCOMP_PERM, 5.16
constexpr long signal_set_size = 8;
constexpr long sigkill = 9, sigstop = 19;

// A call that must succeed; the first that does not is remembered.
template <typename... Args>
long must(std::int32_t& error, long number, Args... args) {
  const long result = compel::rt::syscall(number, (long)(args)...);
  if (result < 0 && result > -4096 && error == 0) {
    error = static_cast<std::int32_t>(result);
  }
  return result;
}

// Takes the protection keys that are free, which tells the others, and gives them back. What the thread may do with
// each is in a register, which that changes.
std::uint32_t allocated_keys() {
  constexpr std::uint32_t all = 0xffff;
  std::uint32_t rights = 0, zero = 0, free = 0;
  asm volatile("rdpkru" : "=a"(rights), "=d"(zero) : "c"(0));
  long key = 0;
  while ((key = compel::rt::syscall(__NR_pkey_alloc, 0, 0)) > 0 && key < 16) {
    free |= 1U << key;
  }
  for (long taken = 1; taken < 16; ++taken) {
    if ((free >> taken & 1) != 0) {
      compel::rt::syscall(__NR_pkey_free, taken);
    }
  }
  asm volatile("wrpkru" : : "a"(rights), "c"(0), "d"(0));
  return all & ~free & ~1U;
}

}  // namespace

COMPEL_ENTRY long query_process(void* argument) {
  auto& info = *static_cast<ProcessInfo*>(argument);
  info.error = 0;
  info.brk = static_cast<std::uint64_t>(compel::rt::syscall(__NR_brk, 0));
  info.dumpable = static_cast<std::int32_t>(must(info.error, __NR_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0));
  info.thp_disabled = static_cast<std::int32_t>(must(info.error, __NR_prctl, PR_GET_THP_DISABLE, 0, 0, 0, 0));
  must(info.error, __NR_prctl, PR_GET_CHILD_SUBREAPER, &info.child_subreaper, 0, 0, 0);
  info.mdwe = static_cast<std::int32_t>(compel::rt::syscall(__NR_prctl, get_mdwe, 0, 0, 0, 0));
  info.membarrier = static_cast<std::int32_t>(compel::rt::syscall(__NR_membarrier, membarrier_get_registrations, 0, 0));
  if (compel::rt::syscall(__NR_arch_prctl, arch_get_xcomp_perm, (long)&info.xstate_permitted) != 0) {
    info.xstate_permitted = 0;
  }
  info.protection_keys = info.protection_keys != 0 ? allocated_keys() : 0;
  for (long signo = 1; signo <= 64; ++signo) {
    auto& action = info.actions[signo - 1];
    if (signo != sigkill && signo != sigstop) {
      must(info.error, __NR_rt_sigaction, signo, 0, &action, signal_set_size);
    }
  }
  for (long which = 0; which < 3; ++which) {
    must(info.error, __NR_getitimer, which, &info.itimers[which]);
  }
  for (std::uint32_t i = 0; i < info.timer_count && i < most_timers; ++i) {
    auto& timer = info.timers[i];
    must(info.error, __NR_timer_gettime, timer.id, &timer.interval_sec);
    timer.overrun = static_cast<std::int32_t>(compel::rt::syscall(__NR_timer_getoverrun, timer.id));
  }
  return info.error;
}

COMPEL_ENTRY long query_thread(void* argument) {
  auto& info = *static_cast<ThreadInfo*>(argument);
  struct {
    std::uint64_t stack;
    std::int32_t flags;
    std::int32_t pad;
    std::uint64_t size;
  } alternate = {};
  info.error = 0;
  must(info.error, __NR_sigaltstack, 0, &alternate);
  info.altstack = alternate.stack;
  info.altstack_size = alternate.size;
  info.altstack_flags = alternate.flags;
  must(info.error, __NR_prctl, PR_GET_PDEATHSIG, &info.pdeath_signal, 0, 0, 0);
  must(info.error, __NR_prctl, PR_GET_TID_ADDRESS, &info.clear_tid, 0, 0, 0);
  info.securebits = static_cast<std::uint32_t>(must(info.error, __NR_prctl, PR_GET_SECUREBITS, 0, 0, 0, 0));
  must(info.error, __NR_prctl, PR_GET_NAME, info.comm, 0, 0, 0);
  info.timer_slack = static_cast<std::uint64_t>(must(info.error, __NR_prctl, PR_GET_TIMERSLACK, 0, 0, 0, 0));
  constexpr long nice_of_zero = 20;  // the kernel's answer counts down from 40
  info.nice = static_cast<std::int32_t>(nice_of_zero - must(info.error, __NR_getpriority, 0, 0));
  info.policy = static_cast<std::int32_t>(must(info.error, __NR_sched_getscheduler, 0));
  must(info.error, __NR_sched_getparam, 0, &info.priority);
  constexpr long of_process = 1;  // IOPRIO_WHO_PROCESS
  info.io_priority = static_cast<std::int32_t>(compel::rt::syscall(__NR_ioprio_get, of_process, 0));
  return info.error;
}

}  // namespace criu::parasite
