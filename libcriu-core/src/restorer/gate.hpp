// SPDX-License-Identifier: LGPL-2.1-only
// How the tasks of a restore wait for each other and for their master, and notice its death.
//
// A gate is a robust, process-shared pthread mutex in shared memory, locked by the master from the start. To open it
// the master unlocks it. When the master dies, by whatever signal, the kernel walks the master's robust list, marks
// each gate that is still locked and wakes a waiter. So a waiter learns in one place of both ends of its wait, needs
// no descriptor for it, and nothing has to be polled.
//
// Who is not the master can open a gate too, by force: the word then names no owner any more, and the master sees to
// its mutex when it gets to it.
//
// Used by freestanding code too: nothing but system calls here.
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>

#include <cstdint>

namespace criu::restorer {

inline long raw_syscall(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

// The layout of pthread_mutex_t that matters here: its lock word comes first.
struct alignas(64) Gate {
  std::uint32_t word;
  char rest[60];
};

inline void futex_wake_all(std::uint32_t* word) {
  raw_syscall(SYS_futex, reinterpret_cast<long>(word), FUTEX_WAKE, 0x7fffffff);
}

inline void force_open(Gate* gate) {
  if ((__atomic_exchange_n(&gate->word, 0U, __ATOMIC_ACQ_REL) & FUTEX_WAITERS) != 0) {
    futex_wake_all(&gate->word);
  }
}

// Waits until the gate is opened. False: the master died.
inline bool wait_at(Gate* gate) {
  auto* word = &gate->word;
  for (;;) {
    std::uint32_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    const bool died = (seen & FUTEX_OWNER_DIED) != 0;
    if (died || (seen & FUTEX_TID_MASK) == 0) {
      futex_wake_all(word);  // the kernel wakes only one when the master dies: pass it on
      return !died;
    }
    if ((seen & FUTEX_WAITERS) == 0) {
      // Without this bit neither the unlock nor the kernel would wake anybody.
      if (!__atomic_compare_exchange_n(word, &seen, seen | FUTEX_WAITERS, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        continue;
      }
      seen |= FUTEX_WAITERS;
    }
    raw_syscall(SYS_futex, reinterpret_cast<long>(word), FUTEX_WAIT, seen);
  }
}

}  // namespace criu::restorer
