// SPDX-License-Identifier: LGPL-2.1-only
// The restorer: the code that runs inside a task while it becomes the restored one.
//
// It is alone in its address space: everything else, the C library included, goes in its second step. It has no data
// of its own; all it knows is in the plan. The steps stand in the order in which they must happen:
//
//   memory     the old address space goes, the new one comes. Everything below needs addresses of the new one.
//   late       what names memory by its address, and needs it to be there: buffers of an io_uring.
//   mm         the kernel checks these addresses against the new mappings.
//   threads    each with its own ids; from here on they work in parallel.
//   signals    actions before timers, so that nothing falls on a default action; all signals stay blocked to the end.
//   ids        after whatever needs to be root. Seccomp filters while there are capabilities, which are not enforced
//              yet because the master traces the threads by then; the capabilities go last.
//   ready      the master takes over: it stops every thread, puts the registers in and unmaps the restorer.
#include <asm/errno.h>
#include <asm/prctl.h>
#include <linux/capability.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>

#include "arch/tiles.hpp"
#include "restorer/sys.hpp"

namespace criu::restorer {

namespace {

constexpr int advice_guard_install = 102;           // MADV_GUARD_INSTALL, 6.13
constexpr int prctl_timer_create_restore_ids = 77;  // PR_TIMER_CREATE_RESTORE_IDS, 6.15
constexpr int prctl_set_mdwe = 65;                  // PR_SET_MDWE, 6.3
constexpr int arch_req_xcomp_perm = 0x1023;         // ARCH_REQ_XCOMP_PERM, 5.16
constexpr int io_priority_of_process = 1;           // IOPRIO_WHO_PROCESS
constexpr long signal_set_size = 8;

void copy_text(char*& to, const char* end, const char* from) {
  while (*from != '\0' && to < end) {
    *to++ = *from++;
  }
}

}  // namespace

[[noreturn]] void fail(const Context& context, const char* what, long error, std::uint64_t detail) {
  Shared* shared = context.plan->shared;
  std::uint32_t none = 0;
  if (__atomic_compare_exchange_n(&shared->failed, &none, 1U, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    char* at = shared->failure;
    const char* end = shared->failure + sizeof shared->failure - 1;
    copy_text(at, end, what);
    if (detail != 0) {
      copy_text(at, end, " 0x");
      for (int shift = 60; shift >= 0; shift -= 4) {
        if (detail >> shift != 0 && at < end) {
          *at++ = "0123456789abcdef"[(detail >> shift) & 15];
        }
      }
    }
    *at = '\0';
    shared->failed_pid = context.pid;
    shared->failed_errno = static_cast<std::int32_t>(error);
    __atomic_store_n(&shared->failed, 2U, __ATOMIC_RELEASE);
    __atomic_add_fetch(&shared->event, 1, __ATOMIC_ACQ_REL);
    futex_wake_all(&shared->event);
  }
  wait_at(&shared->gates[static_cast<int>(Stage::ready)]);
  raw_syscall(SYS_exit_group, 1);
  __builtin_unreachable();
}

namespace {

// ---- memory

void unmap_the_rest(const Context& context) {
  const Plan* plan = context.plan;
  const Range* keep = context.at(plan->keep);
  std::uint64_t from = 0;
  for (std::uint32_t i = 0; i <= plan->keep_count; ++i) {
    const std::uint64_t to = i < plan->keep_count ? keep[i].start : plan->task_size;
    if (to > from) {
      must(context, "unmap the old address space at", from, SYS_munmap, from, to - from);
    }
    if (i < plan->keep_count) {
      from = keep[i].end;
    }
  }
}

void move_vdso(const Context& context, std::uint64_t Part::*from, std::uint64_t Part::*to) {
  for (std::uint32_t i = 0; i < context.plan->vdso_parts; ++i) {
    const Part& part = context.plan->vdso[i];
    must(context, "move the vDSO to", part.*to, SYS_mremap, part.*from, part.size, part.size,
         MREMAP_MAYMOVE | MREMAP_FIXED, part.*to);
  }
}

// A later dump must know that this vDSO is only the target of jumps, and where the code that jumps lies.
void mark_vdso(const Context& context) {
  const Plan* plan = context.plan;
  // The whole of it: the kernel does not let this mapping be split.
  const std::uint64_t size = plan->vdso_mark_size;
  must(context, "make the vDSO writable at", plan->vdso_mark_at, SYS_mprotect, plan->vdso_mark_at, size,
       PROT_READ | PROT_WRITE);
  auto* words = reinterpret_cast<std::uint64_t*>(plan->vdso_mark_at);
  for (int i = 0; i < 5; ++i) {
    words[i] = plan->vdso_mark[i];
  }
  must(context, "protect the vDSO at", plan->vdso_mark_at, SYS_mprotect, plan->vdso_mark_at, size,
       PROT_READ | PROT_EXEC);
}

// `maybe_moved`: a call for several areas may have moved it before it failed at another.
void move_area(const Context& context, const Area& area, bool maybe_moved) {
  const std::uint64_t size = area.end - area.start;
  unsigned char resident;
  if (maybe_moved &&
      raw_syscall(SYS_mincore, static_cast<long>(area.start), 1, reinterpret_cast<long>(&resident)) == 0) {
    return;  // nothing else can be mapped there
  }
  must(context, "move a filled area to", area.start, SYS_mremap, area.parked, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
       area.start);
}

// Areas that were parked at the distances they had go home together. Before 6.17 the kernel refuses to move several
// mappings in one call; since then it does so one by one, and stops at one that it does not move in company: of a
// device, for instance.
void move_areas(const Context& context, const Area* areas, std::uint32_t count) {
  for (std::uint32_t first = 0; first < count;) {
    std::uint32_t next = first + 1;
    if (areas[first].moves == 0 || areas[first].parked == areas[first].start) {
      first = next;
      continue;
    }
    std::uint32_t last = first;
    for (; next < count; ++next) {
      if (areas[next].moves != 0) {
        if (areas[next].parked - areas[next].start != areas[first].parked - areas[first].start) {
          break;
        }
        last = next;
      }
    }
    const std::uint64_t size = areas[last].end - areas[first].start;
    if (last == first || raw_syscall(SYS_mremap, static_cast<long>(areas[first].parked), static_cast<long>(size),
                                     static_cast<long>(size), MREMAP_MAYMOVE | MREMAP_FIXED,
                                     static_cast<long>(areas[first].start)) != static_cast<long>(areas[first].start)) {
      for (std::uint32_t i = first; i <= last; ++i) {
        if (areas[i].moves != 0) {
          move_area(context, areas[i], last != first);
        }
      }
    }
    first = next;
  }
}

void map_area(const Context& context, const Area& area) {
  must(context, "map an area at", area.start, SYS_mmap, area.start, area.end - area.start, area.prot,
       area.flags | MAP_FIXED, area.fd, area.offset);
}

// Neighbours of one protection are protected in one call.
void protect_areas(const Context& context, const Area* areas, std::uint32_t count) {
  for (std::uint32_t first = 0; first < count;) {
    std::uint32_t next = first + 1;
    if (areas[first].protect != 0) {
      while (next < count && areas[next].protect != 0 && areas[next].prot == areas[first].prot &&
             areas[next].start == areas[next - 1].end) {
        ++next;
      }
      must(context, "protect the area at", areas[first].start, SYS_mprotect, areas[first].start,
           areas[next - 1].end - areas[first].start, areas[first].prot);
    }
    first = next;
  }
}

// Pages that cannot be brought in (of a guard of a stack, or beyond the end of a file) make the call fail after the
// area has been locked; too low a limit makes it fail before.
void lock_area(const Context& context, const Area& area) {
  const auto lock = [&](long flags) {
    return raw_syscall(SYS_mlock2, static_cast<long>(area.start), static_cast<long>(area.end - area.start), flags);
  };
  if (area.lock == 1) {
    if (lock(0) == 0) {
      return;
    }
    must(context, "lock the area at", area.start, SYS_mlock2, area.start, area.end - area.start, MLOCK_ONFAULT);
    lock(0);
  } else {
    must(context, "lock the area at", area.start, SYS_mlock2, area.start, area.end - area.start, MLOCK_ONFAULT);
  }
}

void advise_area(const Context& context, const Area& area) {
  const std::uint64_t size = area.end - area.start;
  if (area.key != 0) {
    must(context, "set the protection key of the area at", area.start, SYS_pkey_mprotect, area.start, size, area.prot,
         area.key);
  }
  for (unsigned advice = 0; area.advice != 0 && advice < 64; ++advice) {
    if ((area.advice >> advice & 1) != 0) {
      must(context, "advise the kernel on the area at", area.start, SYS_madvise, area.start, size, advice);
    }
  }
  if (area.lock != 0) {
    lock_area(context, area);
  }
}

// All of the address space that is free, taken for as long as this lives, in pieces that get smaller.
class Filled {
 public:
  explicit Filled(const Context& context) {
    pieces_ = reinterpret_cast<Range*>(must(context, "map a list of gaps", 0, SYS_mmap, 0, room, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (std::uint64_t size = std::uint64_t{1} << 46; size >= page; size >>= 1) {
      long at = 0;
      while (count_ < room / sizeof(Range) &&
             (at = raw_syscall(SYS_mmap, 0, static_cast<long>(size), PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) > 0) {
        pieces_[count_++] = {static_cast<std::uint64_t>(at), size};
      }
    }
  }
  ~Filled() {
    while (count_ > 0) {
      const Range& piece = pieces_[--count_];
      raw_syscall(SYS_munmap, static_cast<long>(piece.start), static_cast<long>(piece.end));
    }
    raw_syscall(SYS_munmap, reinterpret_cast<long>(pieces_), room);
  }
  Filled(const Filled&) = delete;
  Filled& operator=(const Filled&) = delete;

 private:
  static constexpr std::uint64_t page = 4096;
  static constexpr long room =
      4 << 20;     // for a quarter of a million gaps, four times what the kernel allows by default
  Range* pieces_;  // start and size
  std::uint64_t count_ = 0;
};

// The kernel maps memory of an io_uring where it wants to, and does not move it either. So there must be one place
// alone that it can want.
void map_placed(const Context& context, const Area* areas, std::uint32_t count) {
  const auto each = [&](auto call) {
    for (std::uint32_t i = 0; i < count; ++i) {
      if (areas[i].placed != 0) {
        call(areas[i]);
      }
    }
  };
  bool any = false;
  each([&](const Area& area) {
    any = true;
    must(context, "keep room for the area at", area.start, SYS_mmap, area.start, area.end - area.start, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  });
  if (!any) {
    return;
  }
  const Filled filled(context);
  each([&](const Area& area) {
    must(context, "make room for the area at", area.start, SYS_munmap, area.start, area.end - area.start);
    const long at = must(context, "map the area at", area.start, SYS_mmap, 0, area.end - area.start, area.prot,
                         area.flags, area.fd, area.offset);
    if (at != static_cast<long>(area.start)) {
      fail(context, "the kernel maps elsewhere the area at", EADDRNOTAVAIL, area.start);
    }
    advise_area(context, area);
  });
}

// The kernel gives out the lowest free key, also to itself, for memory that is executable alone: it takes one for the
// first such area and keeps to it.
void allocate_keys(const Context& context, std::uint32_t wanted, std::uint32_t execute_only) {
  std::uint32_t spare = 0;
  wanted |= execute_only != 0 ? 1U << execute_only : 0;
  while (wanted != 0) {
    const long key = must(context, "allocate protection keys", wanted, SYS_pkey_alloc, 0, 0);
    if (key == static_cast<long>(execute_only)) {
      constexpr long page = 4096;
      raw_syscall(SYS_pkey_free, key);
      const long at = must(context, "map memory that is executable alone", 0, SYS_mmap, 0, page, PROT_EXEC,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      raw_syscall(SYS_munmap, at, page);
    }
    if ((wanted >> key & 1) != 0) {
      wanted &= ~(1U << key);
    } else {
      spare |= 1U << key;
    }
  }
  for (long key = 1; spare != 0 && key < 16; ++key) {
    if ((spare >> key & 1) != 0) {
      raw_syscall(SYS_pkey_free, key);
    }
  }
}

void restore_memory(const Context& context) {
  const Plan* plan = context.plan;
  allocate_keys(context, plan->protection_keys, plan->execute_only_key);
  move_vdso(context, &Part::at, &Part::parking);
  unmap_the_rest(context);
  const Area* areas = context.at(plan->areas);
  move_areas(context, areas, plan->area_count);
  for (std::uint32_t i = 0; i < plan->area_count; ++i) {
    if (areas[i].moves == 0 && areas[i].placed == 0) {
      map_area(context, areas[i]);
    }
  }
  protect_areas(context, areas, plan->area_count);
  for (std::uint32_t i = 0; i < plan->area_count; ++i) {
    if (areas[i].placed == 0) {
      advise_area(context, areas[i]);
    }
  }
  const Range* guards = context.at(plan->guards);
  for (std::uint32_t i = 0; i < plan->guard_count; ++i) {
    must(context, "install guard pages at", guards[i].start, SYS_madvise, guards[i].start,
         guards[i].end - guards[i].start, advice_guard_install);
  }
  move_vdso(context, &Part::parking, &Part::home);
  map_placed(context, areas, plan->area_count);
  if (plan->vdso_mark_at != 0) {
    mark_vdso(context);
  }
  if (plan->lock_future != 0) {
    must(context, "lock what is mapped later", 0, SYS_mlockall, plan->lock_future);
  }
}

void copy_bytes(std::uint64_t to, const std::byte* from, std::uint64_t size) {
  auto* at = reinterpret_cast<volatile std::byte*>(to);
  for (std::uint64_t i = 0; i < size; ++i) {
    at[i] = from[i];
  }
}

void do_late_steps(const Context& context) {
  const LateStep* steps = context.at(context.plan->late_steps);
  for (std::uint32_t i = 0; i < context.plan->late_step_count; ++i) {
    const LateStep& step = steps[i];
    if (step.number == 0) {
      copy_bytes(step.args[0], context.at(step.data), step.args[2]);
      continue;
    }
    std::uint64_t args[6];
    for (int n = 0; n < 6; ++n) {
      args[n] = n == step.data_at ? reinterpret_cast<std::uint64_t>(context.at(step.data)) : step.args[n];
    }
    const long result = raw_syscall(static_cast<long>(step.number), static_cast<long>(args[0]),
                                    static_cast<long>(args[1]), static_cast<long>(args[2]), static_cast<long>(args[3]),
                                    static_cast<long>(args[4]), static_cast<long>(args[5]));
    if (result != step.expected) {
      fail(context, step.what, result < 0 ? -result : 0);
    }
  }
}

void restore_mm(const Context& context) {
  Plan* plan = context.plan;
  plan->mm.auxv = reinterpret_cast<std::uint64_t>(context.at(plan->auxv));
  must(context, "set the bounds of code, data, stack and the executable", 0, SYS_prctl, PR_SET_MM, PR_SET_MM_MAP,
       &plan->mm, sizeof plan->mm, 0);
  if (plan->thp_disable != 0) {
    must(context, "disable huge pages", 0, SYS_prctl, PR_SET_THP_DISABLE, 1, 0, 0, 0);
  }
  if (plan->child_subreaper != 0) {
    must(context, "become a child subreaper", 0, SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  }
  if (plan->xstate_request != 0) {
    must(context, "get permission for XSAVE component", plan->xstate_request, SYS_arch_prctl, arch_req_xcomp_perm,
         plan->xstate_request);
  }
  if (plan->set_personality != 0) {
    must(context, "set personality", plan->personality, SYS_personality, plan->personality);
  }
  for (unsigned bit = 0; bit < 32; ++bit) {
    if ((plan->membarrier >> bit & 1) != 0) {
      must(context, "register for membarrier command", 1U << bit, SYS_membarrier, 1U << bit, 0, 0);
    }
  }
}

// ---- signals and timers

void restore_actions(const Context& context) {
  for (unsigned signo = 1; signo <= 64; ++signo) {
    if ((context.plan->actions_to_set >> (signo - 1) & 1) != 0) {
      must(context, "set the action of signal", signo, SYS_rt_sigaction, signo, &context.plan->actions[signo - 1], 0,
           signal_set_size);
    }
  }
}

// Before 6.15 a timer's id is the next one free: make and delete until it comes up.
void create_timer(const Context& context, const PosixTimer& timer, void* event, bool by_id) {
  for (;;) {
    std::int32_t id = timer.id;
    must(context, "make a timer on clock", static_cast<std::uint32_t>(timer.clock), SYS_timer_create, timer.clock,
         event, &id);
    if (id == timer.id) {
      return;
    }
    if (by_id || id > timer.id) {
      fail(context, "get the timer id", 17, static_cast<std::uint32_t>(timer.id));
    }
    must(context, "delete a timer", 0, SYS_timer_delete, id);
  }
}

void restore_timers(const Context& context) {
  Plan* plan = context.plan;
  const bool by_id = plan->timer_count > 0 && raw_syscall(SYS_prctl, prctl_timer_create_restore_ids, 1, 0, 0, 0) == 0;
  const PosixTimer* timers = context.at(plan->timers);
  for (std::uint32_t i = 0; i < plan->timer_count; ++i) {
    const PosixTimer& timer = timers[i];
    struct {
      std::uint64_t value;
      std::int32_t signo, notify, tid;
      char rest[44];
    } event = {timer.value, timer.signo, timer.notify, timer.tid, {}};
    static_assert(sizeof event == 64);
    create_timer(context, timer, &event, by_id);
    const std::int64_t setting[4] = {timer.interval_sec, timer.interval_nsec, timer.left_sec, timer.left_nsec};
    must(context, "arm timer", static_cast<std::uint32_t>(timer.id), SYS_timer_settime, timer.id, 0, setting, 0);
  }
  if (by_id) {
    raw_syscall(SYS_prctl, prctl_timer_create_restore_ids, 0, 0, 0, 0);
  }
  for (int which = 0; which < 3; ++which) {
    must(context, "set interval timer", static_cast<unsigned>(which), SYS_setitimer, which, &plan->itimers[which], 0);
  }
}

void queue_signals(const Context& context, Ref<PendingSignal> ref, std::uint32_t count, std::int32_t tid) {
  PendingSignal* pending = context.at(ref);
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto signo = *reinterpret_cast<std::int32_t*>(pending[i].siginfo);
    if (tid == 0) {
      must(context, "queue signal", static_cast<unsigned>(signo), SYS_rt_sigqueueinfo, context.pid, signo, &pending[i]);
    } else {
      must(context, "queue signal for a thread", static_cast<unsigned>(signo), SYS_rt_tgsigqueueinfo, context.pid, tid,
           signo, &pending[i]);
    }
  }
}

// ---- credentials

void set_capabilities(const Context& context, const std::uint32_t effective[2], const std::uint32_t permitted[2],
                      const std::uint32_t inheritable[2]) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2];
  for (int word = 0; word < 2; ++word) {
    data[word] = {effective[word], permitted[word], inheritable[word]};
  }
  must(context, "set capabilities", 0, SYS_capset, &header, data);
}

void drop_bounding_set(const Context& context, const Credentials& wanted) {
  for (std::uint32_t capability = 0; capability <= wanted.last_capability; ++capability) {
    if ((wanted.bounding[capability / 32] >> (capability % 32) & 1) == 0) {
      must(context, "drop a capability from the bounding set", capability, SYS_prctl, PR_CAPBSET_DROP, capability, 0, 0,
           0);
    }
  }
}

// The ids. All capabilities stay until the end.
void restore_ids(const Context& context, const Credentials& wanted) {
  if (wanted.group_count > 0) {
    must(context, "set supplementary groups", 0, SYS_setgroups, wanted.group_count, context.at(wanted.groups));
  }
  // Until the end the change of ids must not touch the capabilities.
  must(context, "hold capabilities over a change of ids", 0, SYS_prctl, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0,
       0);
  must(context, "set group ids", 0, SYS_setresgid, wanted.gid, wanted.egid, wanted.sgid);
  raw_syscall(SYS_setfsgid, wanted.fsgid);
  must(context, "set user ids", 0, SYS_setresuid, wanted.uid, wanted.euid, wanted.suid);
  raw_syscall(SYS_setfsuid, wanted.fsuid);
  drop_bounding_set(context, wanted);
}

void restore_capabilities(const Context& context, const Credentials& wanted) {
  // An ambient capability must be permitted and inheritable when it is raised, and may be forbidden by the securebits
  // that come after it.
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct now[2];
  must(context, "read capabilities", 0, SYS_capget, &header, now);
  const std::uint32_t effective[2] = {now[0].effective, now[1].effective};
  const std::uint32_t permitted[2] = {now[0].permitted, now[1].permitted};
  set_capabilities(context, effective, permitted, wanted.inheritable);
  for (std::uint32_t capability = 0; capability <= wanted.last_capability; ++capability) {
    if ((wanted.ambient[capability / 32] >> (capability % 32) & 1) != 0) {
      must(context, "raise ambient capability", capability, SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability,
           0, 0);
    }
  }
  must(context, "set securebits", wanted.securebits, SYS_prctl, PR_SET_SECUREBITS, wanted.securebits, 0, 0, 0);
  set_capabilities(context, wanted.effective, wanted.permitted, wanted.inheritable);
  if (wanted.no_new_privs != 0) {
    must(context, "set no_new_privs", 0, SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  }
}

// ---- threads

void restore_scheduling(const Context& context, const Thread& thread) {
  if (thread.set_scheduler != 0) {
    const std::int32_t priority = static_cast<std::int32_t>(thread.priority);
    must(context, "set scheduling policy", thread.policy, SYS_sched_setscheduler, 0, thread.policy, &priority);
    must(context, "set nice value of", static_cast<std::uint32_t>(thread.tid), SYS_setpriority, 0, 0, thread.nice);
  }
  if (thread.affinity_size != 0) {
    must(context, "choose the processors of", static_cast<std::uint32_t>(thread.tid), SYS_sched_setaffinity, 0,
         thread.affinity_size, context.at(thread.affinity));
  }
  if (thread.set_io_priority != 0) {
    must(context, "set I/O priority", thread.io_priority, SYS_ioprio_set, io_priority_of_process, 0,
         thread.io_priority);
  }
  if (thread.timer_slack != 0) {
    must(context, "set timer slack", thread.timer_slack, SYS_prctl, PR_SET_TIMERSLACK, thread.timer_slack, 0, 0, 0);
  }
}

// What each thread does for itself, the leader included.
void restore_thread(const Context& context, const Thread& thread) {
  raw_syscall(SYS_set_tid_address, static_cast<long>(thread.clear_tid));
  if (thread.robust_list_size != 0) {
    must(context, "set the robust list of", static_cast<std::uint32_t>(thread.tid), SYS_set_robust_list,
         thread.robust_list, thread.robust_list_size);
  }
  constexpr std::uint32_t on_stack = 1;
  struct {
    std::uint64_t stack;
    std::int32_t flags;
    std::uint64_t size;
  } alternate = {thread.altstack, static_cast<std::int32_t>(thread.altstack_flags & ~on_stack), thread.altstack_size};
  must(context, "set the alternate stack of", static_cast<std::uint32_t>(thread.tid), SYS_sigaltstack, &alternate, 0);
  if (thread.rseq != 0) {
    must(context, "register rseq of", static_cast<std::uint32_t>(thread.tid), SYS_rseq, thread.rseq, thread.rseq_size,
         0, thread.rseq_signature);
  }
  must(context, "set the name of", static_cast<std::uint32_t>(thread.tid), SYS_prctl, PR_SET_NAME, thread.comm, 0, 0,
       0);
  restore_scheduling(context, thread);
  if (thread.uses_tiles != 0) {
    arch::use_tiles();
  }
  queue_signals(context, thread.pending, thread.pending_count, thread.tid);
  restore_ids(context, thread.credentials);
  must(context, "set the parent-death signal", thread.pdeath_signal, SYS_prctl, PR_SET_PDEATHSIG, thread.pdeath_signal,
       0, 0, 0);
}

void install_filter(const Context& context, const Thread& thread, std::uint32_t index, std::uint32_t more_flags) {
  const SeccompFilter& filter = context.at(thread.filters)[index];
  struct {
    std::uint16_t count;
    std::uint64_t* instructions;
  } program = {static_cast<std::uint16_t>(filter.count), context.at(filter.instructions)};
  // A thread that cannot be given the filter, too, is the result.
  if (must(context, "install seccomp filter", index, SYS_seccomp, SECCOMP_SET_MODE_FILTER, filter.flags | more_flags,
           &program) != 0) {
    fail(context, "install a seccomp filter for all threads", ESRCH, index);
  }
}

void restore_seccomp(const Context& context, const Thread& thread) {
  if (thread.seccomp_mode == SECCOMP_MODE_STRICT) {
    must(context, "enter strict seccomp", 0, SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, 0);
  }
  Plan* plan = context.plan;
  const bool leads = thread.tid == context.pid;
  const std::uint32_t common = leads ? plan->common_filters : 0;
  for (std::uint32_t i = 0; i < common; ++i) {
    install_filter(context, thread, i, SECCOMP_FILTER_FLAG_TSYNC);
  }
  if (plan->common_filters > 0 && leads) {
    __atomic_store_n(&plan->common_installed, 1U, __ATOMIC_RELEASE);
    futex_wake_all(&plan->common_installed);
  } else if (plan->common_filters > 0 && thread.filter_count > 0) {
    while (__atomic_load_n(&plan->common_installed, __ATOMIC_ACQUIRE) == 0) {
      raw_syscall(SYS_futex, reinterpret_cast<long>(&plan->common_installed), FUTEX_WAIT, 0);
    }
  }
  for (std::uint32_t i = common; i < thread.filter_count; ++i) {
    install_filter(context, thread, i, 0);
  }
}

// After the descriptors that only the restore needed are closed: each takes the POSIX locks of its process on the file
// along. A table that tasks share is closed as a whole by the first of them.
void take_locks(const Context& context) {
  const Plan* plan = context.plan;
  const FileLock* locks = context.at(plan->locks);
  for (std::uint32_t i = 0; i < plan->lock_count; ++i) {
    const FileLock& lock = locks[i];
    const auto fd = static_cast<std::uint64_t>(lock.fd);
    if (lock.command == FileLock::whole) {
      must(context, "take the lock on descriptor", fd, SYS_flock, lock.fd, lock.type);
    } else if (lock.command == F_SETLEASE) {
      must(context, "take the lease on descriptor", fd, SYS_fcntl, lock.fd, F_SETLEASE, lock.type);
    } else {
      struct flock range = {};
      range.l_type = lock.type;
      range.l_start = lock.start;
      range.l_len = lock.length;
      must(context, "take the lock on descriptor", fd, SYS_fcntl, lock.fd, lock.command, &range);
    }
  }
}

struct ThreadStart {
  Context context;
  const Thread* thread;
};

[[noreturn]] void finish_thread(const Context& context, const Thread& thread) {
  Shared* shared = context.plan->shared;
  pass(shared, Stage::rebuilt);
  if (thread.tid == context.pid) {
    must(context, "close internal descriptors", 0, SYS_close_range, context.plan->first_internal_fd, ~0U, 0);
    take_locks(context);
    // What any thread's change of credentials undoes, or what could be in the way of the others until here.
    if (context.plan->mdwe != 0) {
      must(context, "deny memory that is writable and executable", 0, SYS_prctl, prctl_set_mdwe, context.plan->mdwe, 0,
           0, 0);
    }
    must(context, "set dumpable", 0, SYS_prctl, PR_SET_DUMPABLE, context.plan->dumpable, 0, 0, 0);
    for (std::uint32_t i = 0; i < 16; ++i) {
      if ((context.plan->limits_to_set >> i & 1) != 0) {
        must(context, "set resource limit", i, SYS_prlimit64, 0, i, &context.plan->limits[i], 0);
      }
    }
    restore_timers(context);
    queue_signals(context, context.plan->pending, context.plan->pending_count, 0);
  }
  restore_seccomp(context, thread);
  restore_capabilities(context, thread.credentials);
  arrive(shared, Stage::ready);
  if (thread.sleeps != 0) {
    raw_syscall(SYS_clock_nanosleep, thread.sleep_clock, 0, reinterpret_cast<long>(&thread.sleep_sec),
                static_cast<long>(thread.sleep_remainder));
  }
  wait_at(&shared->gates[static_cast<int>(Stage::ready)]);
  // The master put the registers in while this thread waited; it never comes here.
  raw_syscall(SYS_exit_group, 1);
  __builtin_unreachable();
}

[[noreturn]] [[gnu::noinline]] void thread_main(ThreadStart* start) {
  const Context context = start->context;
  const Thread& thread = *start->thread;
  restore_thread(context, thread);
  finish_thread(context, thread);
}

constexpr std::uint64_t thread_flags = CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_FS;

// What comes out of the system call in the child has nothing but its registers: it goes straight to thread_main.
#define CLONE_THEN_RUN    \
  "syscall\n\t"           \
  "test %%rax, %%rax\n\t" \
  "jnz 1f\n\t"            \
  "xor %%ebp, %%ebp\n\t"  \
  "mov %%r12, %%rdi\n\t"  \
  "call *%%r13\n\t"       \
  "1:"

long clone_with_tid(std::int32_t tid, unsigned char* stack, unsigned char* stack_end, ThreadStart* start) {
  clone_args args = {};
  args.flags = thread_flags;
  args.stack = reinterpret_cast<std::uint64_t>(stack);
  args.stack_size = static_cast<std::uint64_t>(stack_end - stack);
  args.set_tid = reinterpret_cast<std::uint64_t>(&tid);
  args.set_tid_size = 1;
  long result = SYS_clone3;
  register ThreadStart* for_child asm("r12") = start;
  register void (*entry)(ThreadStart*) asm("r13") = thread_main;
  asm volatile(CLONE_THEN_RUN
               : "+a"(result)
               : "D"(&args), "S"(sizeof args), "r"(for_child), "r"(entry)
               : "rcx", "r11", "memory");
  return result;
}

// See task/last_pid.hpp. A thread that was made cannot be taken back: if somebody else got the id, the restore fails.
long clone_after_last_pid(const Context& context, std::int32_t tid, unsigned char* stack_end, ThreadStart* start) {
  const auto file = context.plan->last_pid_fd;
  must(context, "lock ns_last_pid", 0, SYS_flock, file, LOCK_EX);
  char text[12];
  unsigned at = sizeof text;
  for (auto number = static_cast<unsigned>(tid - 1); at == sizeof text || number != 0; number /= 10) {
    text[--at] = static_cast<char>('0' + number % 10);
  }
  must(context, "write ns_last_pid", 0, SYS_pwrite64, file, text + at, sizeof text - at, 0);
  long result = SYS_clone;
  register ThreadStart* for_child asm("r12") = start;
  register void (*entry)(ThreadStart*) asm("r13") = thread_main;
  register long no_tid asm("r10") = 0;
  register long no_tls asm("r8") = 0;
  asm volatile(CLONE_THEN_RUN
               : "+a"(result)
               : "D"(thread_flags), "S"(stack_end), "d"(0L), "r"(no_tid), "r"(no_tls), "r"(for_child), "r"(entry)
               : "rcx", "r11", "memory");
  raw_syscall(SYS_flock, file, LOCK_UN);
  return result > 0 && result != tid ? -EEXIST : result;
}

void start_thread(const Context& context, std::uint32_t index) {
  const Thread* thread = context.at(context.plan->threads) + index;
  unsigned char* stack = context.at(context.plan->stacks) + static_cast<std::uint64_t>(index) * stack_size;
  auto* start = reinterpret_cast<ThreadStart*>(stack + stack_size - sizeof(ThreadStart) - 64);
  start = reinterpret_cast<ThreadStart*>(reinterpret_cast<std::uint64_t>(start) & ~std::uint64_t{63});
  start->context = context;
  start->thread = thread;

  auto* const stack_end = reinterpret_cast<unsigned char*>(start);
  const long result = context.plan->last_pid_fd < 0 ? clone_with_tid(thread->tid, stack, stack_end, start)
                                                    : clone_after_last_pid(context, thread->tid, stack_end, start);
  if (result < 0) {
    fail(context, "make the thread with id", -result, static_cast<std::uint32_t>(thread->tid));
  }
}

}  // namespace

extern "C" [[noreturn]] [[gnu::section(".text.start")]] void restorer_main(Plan* plan) {
  const Context context = {plan, static_cast<std::int32_t>(raw_syscall(SYS_getpid))};
  restore_memory(context);
  restore_mm(context);
  do_late_steps(context);
  restore_actions(context);
  for (std::uint32_t i = 1; i < plan->thread_count; ++i) {
    start_thread(context, i);
  }
  const Thread& leader = *context.at(plan->threads);
  restore_thread(context, leader);
  finish_thread(context, leader);
}

}  // namespace criu::restorer
