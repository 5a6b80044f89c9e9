// SPDX-License-Identifier: LGPL-2.1-only
// What the parasite finds out from inside a task, because the kernel tells it to nobody else. Plain structs shared by
// the freestanding parasite and the library.
#pragma once

#include <cstdint>

namespace criu::parasite {

constexpr std::uint32_t most_timers = 512;  // of one question; more are asked for in further ones

struct Action {
  std::uint64_t handler, flags, restorer, mask;
};

struct IntervalTimer {
  std::int64_t interval_sec, interval_usec, left_sec, left_usec;
};

struct Timer {
  std::int32_t id;       // in
  std::int32_t overrun;  // out, and below
  std::int64_t interval_sec, interval_nsec, left_sec, left_nsec;
};

struct ProcessInfo {
  std::uint64_t brk;
  std::int32_t dumpable;
  std::int32_t thp_disabled;
  std::int32_t child_subreaper;
  std::int32_t mdwe;        // PR_GET_MDWE (6.3), or a negative errno
  std::int32_t membarrier;  // registrations (6.3), or a negative errno
  // In: 1 where the processor has protection keys. Out: bits of those that are given out, without the first, which all
  // memory has.
  std::uint32_t protection_keys;
  std::uint64_t xstate_permitted;  // ARCH_GET_XCOMP_PERM, 0 before 5.16
  std::int32_t error;              // of the first call that failed though it must not, negative errno
  Action actions[64];
  IntervalTimer itimers[3];
  std::uint32_t timer_count;  // in
  std::uint32_t leader_at;    // in: where, from here, the ThreadInfo of who is asked is wanted; 0: nowhere
  Timer timers[most_timers];
};

struct ThreadInfo {
  std::uint64_t altstack, altstack_size;
  std::int32_t altstack_flags;
  std::int32_t pdeath_signal;
  std::uint64_t clear_tid;
  std::uint32_t securebits;
  std::int32_t nice;
  std::int32_t policy;    // with SCHED_RESET_ON_FORK
  std::int32_t priority;  // of a real-time policy
  std::int32_t io_priority;
  std::uint64_t timer_slack;  // nanoseconds
  char comm[16];
  std::int32_t error;
};

// One operation of semop(2).
struct SemOperation {
  std::uint16_t number;
  std::int16_t change, flags;
};

constexpr std::uint32_t most_operations = 500;  // of one call; the kernel's usual limit
constexpr std::uint32_t most_semaphores = 512;  // of one question; more are asked for in further ones

// What the end of the process will add to the semaphores of one set (SEM_UNDO).
struct UndoQuery {
  std::int32_t set;                           // in, and below
  std::uint32_t first, count;                 // which semaphores
  std::uint32_t operations_at_once;           // of one call, at most most_operations
  std::int32_t error;                         // out: negative errno
  std::int16_t adjustments[most_semaphores];  // out
  SemOperation room[most_operations];
};

// What an io_uring tells only to who may use it. Negative errno where a call was made to fail: which one it is tells.
struct RingQuery {
  std::int32_t fd;            // in: of this task
  std::uint32_t wait_for;     // in: not 0: waits a while until so many completions are unread
  std::int32_t reference;     // in: 1: groups of buffers can be asked for by name (Linux 6.8)
  std::int32_t probe;         // EEXIST: the ring belongs to another thread (IORING_SETUP_SINGLE_ISSUER), else EFAULT
  std::int32_t resize;        // EFAULT: IORING_SETUP_DEFER_TASKRUN (since Linux 6.13, else EINVAL)
  std::int32_t napi;          // EINVAL: IORING_SETUP_IOPOLL (since Linux 6.9)
  std::int32_t event;         // EBUSY: an eventfd is registered
  std::int32_t enter;         // EBADFD: not enabled yet
  std::int32_t buffer_group;  // that is registered; -1: none
  std::uint32_t registered;   // bits of the places for registered rings of this thread
};

}  // namespace criu::parasite
