// SPDX-License-Identifier: LGPL-2.1-only
// What the restorer is told: plain structs shared by the freestanding restorer and the library that fills them in.
//
// Everything lies in one region of memory that stays where it is until the very end. References inside it are
// offsets from its start, since the region gets its address only when its size is known.
#pragma once

#include <linux/types.h>
#include <sys/resource.h>

#include <cstddef>
#include <cstdint>

#include "restorer/gate.hpp"

namespace criu::restorer {

// A reference inside the region. Offset 0 is the plan itself, so 0 means "none".
template <typename T>
struct Ref {
  std::uint64_t offset = 0;
};

// Stages all tasks pass together. Who arrives last opens the gate: only at the last two the master has something to do
// first, and to wake it takes longer than most of what is done between two stages.
enum class Stage : std::uint32_t {
  forked,     // the whole tree exists
  grouped,    // sessions and process groups are as they were; zombies may die now
  opened,     // each description exists in the task that makes it
  connected,  // descriptors are where they belong, what refers to several of them is set up
  rebuilt,    // all threads exist with everything but their seccomp filters
  ready,      // nothing is left but the registers
  count
};

constexpr bool opened_by_master(Stage stage) { return stage >= Stage::rebuilt; }
// Whether the master is to be told when all have arrived.
constexpr bool told_to_master(Stage stage) { return stage == Stage::forked || opened_by_master(stage); }

// Memory seen by the master and all tasks of a restore.
struct Shared {
  Gate gates[static_cast<int>(Stage::count)];
  std::uint32_t arrived[static_cast<int>(Stage::count)];
  std::uint32_t expected[static_cast<int>(Stage::count)];
  // For the statistics.
  std::uint64_t pages_restored, pages_compared, pages_skipped_cow;
  std::uint32_t forking_time;  // microseconds
  std::uint32_t event;   // counted up and woken when a stage the master waits for is complete, or something failed
  std::uint32_t failed;  // 1: somebody is writing the failure, 2: it is there
  std::int32_t failed_pid;
  std::int32_t failed_errno;
  char failure[2048];  // text, from library code and from the restorer alike
};

inline void arrive(Shared* shared, Stage stage) {
  const auto index = static_cast<int>(stage);
  const auto arrived = __atomic_add_fetch(&shared->arrived[index], 1, __ATOMIC_ACQ_REL);
  if (arrived == shared->expected[index] && !opened_by_master(stage)) {
    force_open(&shared->gates[index]);
  }
  // Nobody but the master itself may be missing.
  if (told_to_master(stage) && arrived + 1 >= shared->expected[index]) {
    __atomic_add_fetch(&shared->event, 1, __ATOMIC_ACQ_REL);
    futex_wake_all(&shared->event);
  }
}

// Arrives, and waits for the others. A task whose master died has no reason to live.
inline void pass(Shared* shared, Stage stage) {
  arrive(shared, stage);
  if (!wait_at(&shared->gates[static_cast<int>(stage)])) {
    raw_syscall(SYS_exit_group, 1);
  }
}

// One area of the restored address space.
struct Area {
  std::uint64_t start, end;
  std::uint64_t offset;  // bytes into the file
  std::uint32_t prot;
  std::uint32_t flags;    // for mmap
  std::int32_t fd;        // -1: anonymous
  std::uint32_t moves;    // 1: was mapped and filled beforehand, at `parked`
  std::uint32_t placed;   // 1: its file lets nobody say where it is mapped
  std::uint32_t protect;  // 1: was mapped writable to be filled, and gets `prot` now
  std::uint32_t lock;     // 1: mlock, 2: with MLOCK_ONFAULT
  std::uint32_t key;      // protection key, 0: the one that all memory has
  std::uint64_t parked;
  std::uint64_t advice;  // bit mask of madvise values
};

struct Range {
  std::uint64_t start, end;
};

// A mapping that is moved twice.
struct Part {
  std::uint64_t at, size, parking, home;
};

struct SignalAction {
  std::uint64_t handler, flags, restorer, mask;
};

struct PosixTimer {
  std::int32_t id;
  std::int32_t clock;
  std::int32_t signo;
  std::int32_t notify;
  std::uint64_t value;
  std::int32_t tid;
  std::int64_t interval_sec, interval_nsec, left_sec, left_nsec;
};

// A file lock to take: by fcntl, or by flock(2) where it is of the whole file.
struct FileLock {
  static constexpr std::int32_t whole = -1;
  std::int32_t fd;
  std::int32_t command;
  std::int16_t type;  // F_RDLCK, F_WRLCK; of flock(2) its operation
  std::int64_t start, length;
};

struct Itimer {
  std::int64_t interval_sec, interval_usec, left_sec, left_usec;
};

struct PendingSignal {
  unsigned char siginfo[128];
};

struct SeccompFilter {
  Ref<std::uint64_t> instructions;  // classic BPF, 8 bytes each
  std::uint32_t count;
  std::uint32_t flags;
};

struct Credentials {
  std::uint32_t uid, gid, euid, egid, suid, sgid, fsuid, fsgid;
  std::uint32_t inheritable[2], permitted[2], effective[2], bounding[2], ambient[2];
  std::uint32_t securebits;
  std::uint32_t no_new_privs;
  Ref<std::uint32_t> groups;
  std::uint32_t group_count;
  std::uint32_t last_capability;  // of this kernel
};

struct Thread {
  std::int32_t tid;
  std::uint64_t robust_list, robust_list_size;
  std::uint64_t clear_tid;
  std::uint64_t altstack, altstack_size;
  std::uint32_t altstack_flags;
  std::uint64_t rseq, rseq_signature;
  std::uint32_t rseq_size;
  std::uint32_t policy, priority;
  std::int32_t nice;
  std::uint32_t set_scheduler;
  std::uint32_t pdeath_signal;
  char comm[16];
  Credentials credentials;
  Ref<PendingSignal> pending;
  std::uint32_t pending_count;
  std::uint32_t seccomp_mode;
  Ref<SeccompFilter> filters;  // the oldest first
  std::uint32_t filter_count;
  std::uint64_t timer_slack;
  std::uint32_t io_priority, set_io_priority;
  std::uint32_t uses_tiles;
  Ref<const char> affinity;
  std::uint32_t affinity_size;  // 0: as this process
  // An interrupted sleep: the thread sleeps on in the restorer, so that the kernel has its end noted when the master
  // interrupts it again.
  std::uint32_t sleeps;
  std::int32_t sleep_clock;
  std::int64_t sleep_sec, sleep_nsec;
  std::uint64_t sleep_remainder;
};

// What can be done only when memory is where it belongs.
struct LateStep {
  std::uint64_t number;  // of a system call; 0: `args[2]` bytes of `data` go to `args[0]`
  std::uint64_t args[6];
  Ref<std::byte> data;
  std::int32_t data_at;  // which argument is the address of `data`; -1: none
  std::int64_t expected;
  char what[64];
};

// prctl(PR_SET_MM_MAP)'s argument, as the kernel has it.
struct MmMap {
  std::uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start,
      env_end, auxv;
  std::uint32_t auxv_size;
  std::int32_t exe_fd;
};

struct Plan {
  Shared* shared;
  std::uint64_t region_start, region_end;  // everything of the restorer, the parking place included
  std::uint64_t task_size;

  Ref<Range> keep;  // what to leave mapped, ascending: region, shared memory, parked areas
  std::uint32_t keep_count;

  // This kernel's vDSO and its data pages, one part a mapping (before 6.17 a move takes one mapping at a time). They
  // are parked inside the region while the old address space goes. No parts: the task had no vDSO, so it goes too.
  Part vdso[4];
  std::uint32_t vdso_parts;
  std::uint64_t vdso_mark_at;    // where the mark of a vDSO that others jump to goes; 0: none
  std::uint64_t vdso_mark_size;  // of that vDSO
  std::uint64_t vdso_mark[5];

  Ref<Area> areas;
  std::uint32_t area_count;
  Ref<Range> guards;
  std::uint32_t guard_count;
  std::uint32_t lock_future;       // flags of an mlockall for what is mapped later, 0: none
  std::uint32_t protection_keys;   // bits of those to allocate
  std::uint32_t execute_only_key;  // the kernel's own, for areas that are executable alone; 0: there are none

  Ref<LateStep> late_steps;
  std::uint32_t late_step_count;

  MmMap mm;
  Ref<std::uint64_t> auxv;
  std::uint32_t thp_disable;
  std::int32_t dumpable;
  std::uint32_t child_subreaper;
  std::uint32_t personality;
  std::uint32_t set_personality;
  std::uint32_t mdwe;
  std::uint32_t xstate_request;  // the highest dynamic XSAVE component to be permitted, 0: none
  std::uint32_t membarrier;

  SignalAction actions[64];
  std::uint64_t actions_to_set;  // bit number - 1: the others are inherited as they should be
  Itimer itimers[3];
  Ref<PosixTimer> timers;
  std::uint32_t timer_count;
  Ref<PendingSignal> pending;
  std::uint32_t pending_count;
  struct rlimit limits[16];
  std::uint32_t limits_to_set;  // bit mask: the others are inherited as they should be

  std::int32_t first_internal_fd;  // descriptors from here up are ours; closed when all tasks have used theirs
  std::int32_t last_pid_fd;        // ns_last_pid, where clone3 does not give pids; else -1
  Ref<Thread> threads;             // the leader first
  std::uint32_t thread_count;
  // How many of the leader's filters are everybody's. The leader installs them for all; who has others of its own
  // besides waits for that, on the second word.
  std::uint32_t common_filters, common_installed;
  Ref<unsigned char> stacks;  // one of stack_size bytes a thread, the leader's first
  Ref<FileLock> locks;
  std::uint32_t lock_count;
};

constexpr std::uint32_t stack_size = 8192;

// What jumping to the restorer looks like: the plan, on the leader's stack.
using Entry = void (*)(Plan* plan);

}  // namespace criu::restorer
