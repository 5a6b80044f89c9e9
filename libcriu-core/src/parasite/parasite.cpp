// SPDX-License-Identifier: LGPL-2.1-only
// The parasite: asks, inside a task, what the kernel tells to nobody else. Freestanding; nothing but system calls.
#include <asm/errno.h>
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
  if (info.leader_at != 0) {
    query_thread(static_cast<char*>(argument) + info.leader_at);
  }
  return info.error;
}

// ---- what the end of the process will add to semaphores
//
// No call tells. But a process can be asked how far its adjustment can be moved until the kernel says ERANGE, in a
// call that is bound to fail: it does its operations under one lock, and at the first that cannot be done takes all of
// them back. Each operation with SEM_UNDO is followed or preceded by its opposite without, so that the value of the
// semaphore stays within its bounds whatever the adjustment does.

namespace {

constexpr std::int16_t no_wait = 04000, undo = 0x1000;  // IPC_NOWAIT, SEM_UNDO
constexpr std::int32_t largest_value = 32767;           // SEMVMX, and SEMAEM, the bound of adjustments
constexpr std::int32_t all_adjustments = 65536;
constexpr long get_value = 12;  // GETVAL

class Probe {
 public:
  explicit Probe(UndoQuery& query) : query_(query) {}

  void begin() { count_ = 0; }
  std::uint32_t count() const { return count_; }

  // Moves the adjustment of a semaphore that has this value.
  void move(std::uint32_t number, std::int32_t value, std::int32_t by) {
    const bool down_first = value >= largest_value - value;
    const std::int32_t room = down_first ? value : largest_value - value;
    const bool raises = by > 0;
    for (std::int32_t left = raises ? by : -by; left > 0;) {
      const std::int32_t step = left < room ? left : room;
      // What is added to the value is taken from the adjustment.
      const bool first_counts = down_first == raises;
      add(number, down_first ? -step : step, first_counts);
      add(number, down_first ? step : -step, !first_counts);
      left -= step;
    }
  }

  // Whether all of it could be done; nothing of it is. What no semaphore allows comes last.
  bool possible(std::uint32_t number) {
    add(number, -largest_value, false);
    add(number, -1, false);
    const long result = compel::rt::syscall(__NR_semop, query_.set, (long)query_.room, count_);
    if (result != -EAGAIN && result != -ERANGE) {
      query_.error = static_cast<std::int32_t>(result < 0 ? result : -EINVAL);
    }
    return result == -EAGAIN;
  }

 private:
  void add(std::uint32_t number, std::int32_t change, bool counts) {
    if (count_ < most_operations) {
      query_.room[count_++] = {static_cast<std::uint16_t>(number), static_cast<std::int16_t>(change),
                               static_cast<std::int16_t>(no_wait | (counts ? undo : 0))};
    }
  }

  UndoQuery& query_;
  std::uint32_t count_ = 0;
};

std::int32_t value_of(UndoQuery& query, std::uint32_t number) {
  return static_cast<std::int32_t>(must(query.error, __NR_semctl, query.set, number, get_value, 0));
}

// Whether none of these semaphores has an adjustment: each can be raised to the bound and lowered to the other.
bool none_adjusted(UndoQuery& query, std::uint32_t first, std::uint32_t end) {
  Probe probe(query);
  probe.begin();
  for (std::uint32_t number = first; number < end; ++number) {
    const std::int32_t value = value_of(query, number);
    probe.move(number, value, largest_value);
    probe.move(number, value, -(all_adjustments - 1));
  }
  return query.error == 0 && probe.possible(first);
}

// By halves. Somebody outside the tree may change the value meanwhile, which is then noticed.
std::int32_t adjustment_of(UndoQuery& query, std::uint32_t number) {
  Probe probe(query);
  for (int attempt = 0; attempt < 64 && query.error == 0; ++attempt) {
    const std::int32_t value = value_of(query, number);
    std::int32_t possible = 0, impossible = all_adjustments;
    while (impossible - possible > 1 && query.error == 0) {
      const std::int32_t middle = (possible + impossible) / 2;
      probe.begin();
      probe.move(number, value, -middle);
      (probe.possible(number) ? possible : impossible) = middle;
    }
    if (value_of(query, number) == value) {
      return possible - (largest_value + 1);
    }
  }
  query.error = query.error == 0 ? -EBUSY : query.error;
  return 0;
}

}  // namespace

COMPEL_ENTRY long query_undo(void* argument) {
  auto& query = *static_cast<UndoQuery*>(argument);
  constexpr std::uint32_t operations_each = 12;  // four pairs down, two up
  query.error = 0;
  const std::uint32_t at_once = (query.operations_at_once - 2) / operations_each;
  if (query.operations_at_once < 2 + operations_each) {
    query.error = -E2BIG;
  }
  for (std::uint32_t done = 0; done < query.count && query.error == 0;) {
    const std::uint32_t end = query.count - done < at_once ? query.count : done + at_once;
    if (none_adjusted(query, query.first + done, query.first + end)) {
      for (; done < end; ++done) {
        query.adjustments[done] = 0;
      }
      continue;
    }
    for (; done < end && query.error == 0; ++done) {
      query.adjustments[done] = static_cast<std::int16_t>(adjustment_of(query, query.first + done));
    }
  }
  return query.error;
}

// ---- io_uring

namespace {

constexpr long ring_unregister_files = 3, ring_register_eventfd = 4, ring_register_probe = 8,
               ring_register_buffer_ring = 22, ring_sync_cancel = 24, ring_buffer_status = 26, ring_register_napi = 27,
               ring_resize = 33;
constexpr std::uint32_t cancel_all = 1, cancel_any = 4;
constexpr long enter_getevents = 1, enter_extended = 8, enter_registered = 16;
constexpr long nowhere = 8;  // no address: the kernel gets as far as to look there

// Groups have no list. Each is asked for by its number, or, on older kernels, made from memory that is not there, which
// fails in another way when there is one.
std::int32_t find_buffer_group(std::int32_t fd, bool by_name) {
  for (std::uint32_t group = 0; group < 65536; ++group) {
    if (by_name) {
      std::uint32_t status[10] = {group};
      if (compel::rt::syscall(__NR_io_uring_register, fd, ring_buffer_status, (long)status, 1) != -ENOENT) {
        return static_cast<std::int32_t>(group);
      }
    } else {
      std::uint64_t ring[5] = {4096, 1 | std::uint64_t{group} << 32};
      if (compel::rt::syscall(__NR_io_uring_register, fd, ring_register_buffer_ring, (long)ring, 1) == -EEXIST) {
        return static_cast<std::int32_t>(group);
      }
    }
  }
  return -1;
}

}  // namespace

COMPEL_ENTRY long query_ring(void* argument) {
  auto& query = *static_cast<RingQuery*>(argument);
  const auto ask = [&query](long operation) {
    return static_cast<std::int32_t>(compel::rt::syscall(__NR_io_uring_register, query.fd, operation, nowhere, 1));
  };
  query.registered = 0;
  for (long place = 0; place < 16; ++place) {
    if (compel::rt::syscall(__NR_io_uring_enter, place, 0, 0, enter_registered, 0, 0) >= 0) {
      query.registered |= 1U << place;
    }
  }
  query.probe = ask(ring_register_probe);
  if (query.probe == -EEXIST) {
    return 0;
  }
  query.resize = ask(ring_resize);
  query.napi = ask(ring_register_napi);
  query.event = ask(ring_register_eventfd);
  query.buffer_group = find_buffer_group(query.fd, query.reference != 0);
  std::int64_t patience[2] = {10, 0};
  std::uint64_t extended[3] = {0, 0, reinterpret_cast<std::uint64_t>(patience)};
  // Also lets completions in that wait for the task to look.
  query.enter =
      static_cast<std::int32_t>(compel::rt::syscall(__NR_io_uring_enter, query.fd, 0, query.wait_for,
                                                    enter_getevents | enter_extended, (long)extended, sizeof extended));
  return 0;
}

COMPEL_ENTRY long quiet_ring(void* argument) {
  const long fd = *static_cast<std::int32_t*>(argument);
  struct {  // io_uring_sync_cancel_reg
    std::uint64_t address = 0;
    std::int32_t fd = -1;
    std::uint32_t flags = cancel_all | cancel_any;
    std::int64_t patience[2] = {10, 0};
    std::uint64_t room[4] = {};
  } everything;
  compel::rt::syscall(__NR_io_uring_register, fd, ring_sync_cancel, (long)&everything, 1);
  compel::rt::syscall(__NR_io_uring_register, fd, ring_unregister_files, 0, 0);
  // What was cancelled ends when its thread looks.
  compel::rt::syscall(__NR_io_uring_enter, fd, 0, 0, enter_getevents, 0, 0);
  return 0;
}

}  // namespace criu::parasite
