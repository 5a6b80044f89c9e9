// SPDX-License-Identifier: LGPL-2.1-only
// What a thread does between coming in and leaving: it runs commands, and watches whether its master still lives.
//
// Both are told by one futex, the lock word of the robust mutex that the master's thread holds. Its thread id goes when
// the master dies; its bit 30 (which the kernel gives a meaning only together with the id 0) is flipped by the master
// for each command, so that a waiter which has seen the old word cannot sleep over it. Bit 31 asks the kernel for the
// wake-up.
#include <linux/errno.h>
#include <linux/futex.h>

#include "internal.hpp"

namespace compel::rt {

compel_control* control = nullptr;

namespace {

long futex(std::uint32_t* word, int operation, std::uint32_t value) {
  // Without a timeout: an interrupted futex wait with one would overwrite the thread's own restart block.
  return syscall(__NR_futex, reinterpret_cast<long>(word), operation, value, 0);
}

void close_channel() {
  for (std::int32_t& fd : control->channel) {
    if (fd >= 0) {
      syscall(__NR_close, fd);
      fd = -1;
    }
  }
}

long builtin(std::uint64_t command, std::uint64_t argument) {
  if (command == COMPEL_BUILTIN_RECEIVE) {
    return receive_fd(control->channel[0]);
  }
  close_channel();
  constexpr long unix_family = 1, sequenced_packets = 5, close_on_exec = 02000000;
  return argument == 0 ? 0
                       : syscall(__NR_socketpair, unix_family, sequenced_packets | close_on_exec, 0,
                                 reinterpret_cast<long>(control->channel));
}

void run(compel_slot* slot) {
  const std::uint64_t entry = slot->entry;
  if (entry <= COMPEL_BUILTIN_LAST) {
    slot->result = builtin(entry, slot->argument);
  } else {
    slot->result = reinterpret_cast<long (*)(void*)>(entry)(reinterpret_cast<void*>(slot->argument));
  }
}

}  // namespace

bool master_lives() {
  return control != nullptr && (__atomic_load_n(life_word(control), __ATOMIC_ACQUIRE) & FUTEX_TID_MASK) != 0;
}

void* data() { return control == nullptr ? nullptr : reinterpret_cast<void*>(control->data); }
std::size_t data_size() { return control == nullptr ? 0 : control->data_size; }

// Returns when the master is dead, and then only.
extern "C" void compel_rt_serve(compel_slot* slot) {
  auto* shared = reinterpret_cast<compel_control*>(slot->control);
  control = shared;
  std::uint32_t* life = life_word(shared);
  std::uint32_t seen = __atomic_load_n(&slot->answered, __ATOMIC_RELAXED);
  for (;;) {
    std::uint32_t word = __atomic_load_n(life, __ATOMIC_ACQUIRE);  // before `posted`: see the top of the file
    const std::uint32_t posted = __atomic_load_n(&slot->posted, __ATOMIC_ACQUIRE);
    if (posted != seen) {
      run(slot);
      seen = posted;
      __atomic_store_n(&slot->answered, posted, __ATOMIC_RELEASE);
      futex(&slot->answered, FUTEX_WAKE, 1);
    } else if ((word & FUTEX_TID_MASK) == 0) {
      break;
    } else if ((word & FUTEX_WAITERS) == 0) {
      __atomic_compare_exchange_n(life, &word, word | FUTEX_WAITERS, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    } else {
      futex(life, FUTEX_WAIT, word);
    }
  }
  // The kernel has woken one waiter; the others are for that one to wake.
  futex(life, FUTEX_WAKE, 0x7fffffff);
  if (slot->unmap_base != 0) {  // the leader
    close_channel();
    if (__atomic_load_n(&shared->threads_inside, __ATOMIC_ACQUIRE) != 0) {
      slot->unmap_size = 0;
    }
  }
}

}  // namespace compel::rt
