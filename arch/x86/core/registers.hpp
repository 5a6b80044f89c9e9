// SPDX-License-Identifier: LGPL-2.1-only
// A thread's registers between the kernel (ptrace) and its core image: the one file of the architecture that knows
// images.
#pragma once

#include <core.pb.h>
#include <sys/types.h>
#include <sys/user.h>

#include <cstddef>
#include <functional>
#include <vector>

namespace criu::arch {

struct Registers {
  user_regs_struct general;
  // The XSAVE area in its standard form, as PTRACE_GETREGSET gives it; empty on a CPU without XSAVE.
  std::vector<std::byte> extended;
};

// What an interrupted system call does when the thread goes on from an image.
enum class Interrupted {
  none,      // the thread was not in one, or it had ended
  restarts,  // it is issued again
};

// Reads the registers of a stopped thread. `general` is passed when the caller has them from the freeze.
std::vector<std::byte> read_extended(pid_t tid);

// Fills thread_info. An interrupted system call is turned into the state in which it will be issued again. `memory`
// reads the task's memory, for calls whose arguments matter.
using ReadMemory = std::function<bool(std::uint64_t address, void* into, std::size_t size)>;
Interrupted save_registers(const Registers&, const ReadMemory& memory, images::core_entry&);

// Where a thread of the restorer that has a sleep to go on with was stopped.
enum class Sleeping {
  not_yet,  // on its way there
  asleep,   // inside, and the kernel can take it up again
  over,     // behind it, at the last gate
};
Sleeping where_asleep(pid_t tid);
// Whether the thread is stopped at the entry of that sleep.
bool enters_sleep(pid_t tid);
// Or at the entry of the wait at the last gate, the sleep behind it.
bool enters_gate(pid_t tid);

// Puts the image's registers into a stopped thread, replacing whatever it was doing. `asleep`: it was stopped in the
// rest of its interrupted sleep. Errors name the thread.
void restore_registers(pid_t tid, const images::core_entry&, bool asleep);

// Whether there are protection keys here, and the instructions for them.
bool has_protection_keys();

// A process gets the use of some XSAVE components (AMX tiles) on request only. Of those a process had permission for,
// the one that this process lacks and has to ask for; 0: none.
std::uint32_t xstate_to_request(std::uint64_t permitted);

}  // namespace criu::arch
