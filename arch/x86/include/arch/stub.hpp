// SPDX-License-Identifier: LGPL-2.1-only
// The way home for a thread that runs something foreign: see arch/x86/compel/stub.S.
#pragma once

#include <sys/user.h>

#include <cstddef>
#include <cstdint>

namespace arch {

// Lies right behind the code of the stub, in the same order as the labels in stub.S.
struct StubData {
  std::uint64_t all_signals;
  std::uint64_t flags, rsp, rip;
  std::uint64_t mask;  // the thread's own signal mask
  std::uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
  // For others who find the stub in a task: whose it is, and what it might still unmap.
  std::uint64_t owner, owner_start, unmap_base;
};

extern "C" const unsigned char compel_stub_begin[], compel_stub_data[], compel_stub_end[];

inline std::size_t stub_code_size() { return static_cast<std::size_t>(compel_stub_data - compel_stub_begin); }
inline std::size_t stub_size() { return static_cast<std::size_t>(compel_stub_end - compel_stub_begin); }

// Distance from the system call at the beginning of the stub to the way home without it.
inline constexpr std::uint64_t stub_home_offset = 2;

// The result of a call that goes on by restart_syscall; the others in restarting() are made again as they were.
inline constexpr std::int64_t restart_block = -516;

// Is this the state of a system call which the kernel interrupted and has not decided about yet?
inline bool restarting(const user_regs_struct& registers) {
  if (static_cast<std::int32_t>(registers.orig_rax) < 0) {
    return false;
  }
  const auto result = static_cast<std::int64_t>(registers.rax);
  return result == -512 || result == -513 || result == -514 || result == restart_block;
}

// May this be the state of a call that waits with a signal mask of its own (sigsuspend, ppoll, pselect, io_pgetevents),
// which is then still in force? epoll_pwait is not among them: an interruption ends it. Nor are pause and select, which
// are interrupted in the same way, but take no mask.
inline bool waits_with_own_mask(const user_regs_struct& registers) {
  constexpr std::int64_t restart_unless_handled = -514;  // ERESTARTNOHAND
  constexpr std::uint64_t pause = 34, select = 23;
  return restarting(registers) && static_cast<std::int64_t>(registers.rax) == restart_unless_handled &&
         registers.orig_rax != pause && registers.orig_rax != select;
}

// What the kernel does to the registers of an interrupted system call when no handler is to run. A thread that goes on
// without passing through the kernel's own signal code needs it done beforehand. `compat` tells that the call was made
// by int 0x80, whose restart_syscall has another number.
inline void apply_restart(user_regs_struct& registers, bool compat) {
  if (!restarting(registers)) {
    return;
  }
  if (static_cast<std::int64_t>(registers.rax) == restart_block) {
    registers.rax = compat ? 0 : 219;
  } else {
    registers.rax = registers.orig_rax;
  }
  registers.rip -= 2;
}

inline void fill_home(StubData& data, const user_regs_struct& home, std::uint64_t mask) {
  data.all_signals = ~std::uint64_t{0};
  data.flags = home.eflags & ~std::uint64_t{0x100};  // a pending single step would trap inside the stub
  data.rsp = home.rsp;
  data.rip = home.rip;
  data.mask = mask;
  data.r15 = home.r15;
  data.r14 = home.r14;
  data.r13 = home.r13;
  data.r12 = home.r12;
  data.rbp = home.rbp;
  data.rbx = home.rbx;
  data.r11 = home.r11;
  data.r10 = home.r10;
  data.r9 = home.r9;
  data.r8 = home.r8;
  data.rax = home.rax;
  data.rcx = home.rcx;
  data.rdx = home.rdx;
  data.rsi = home.rsi;
  data.rdi = home.rdi;
}

// Registers that make the stub run one system call, and then go home unless somebody catches the thread before.
inline user_regs_struct stub_call(const user_regs_struct& home, std::uint64_t stub, long number,
                                  const std::uint64_t arguments[6]) {
  user_regs_struct registers = home;
  registers.rip = stub;
  registers.rax = static_cast<unsigned long long>(number);
  registers.orig_rax = ~0ull;  // this is no interrupted system call: the kernel is to restart nothing
  registers.rdi = arguments[0];
  registers.rsi = arguments[1];
  registers.rdx = arguments[2];
  registers.r10 = arguments[3];
  registers.r8 = arguments[4];
  registers.r9 = arguments[5];
  return registers;
}

// Registers that make the stub go home at once.
inline user_regs_struct stub_home(const user_regs_struct& home, std::uint64_t stub) {
  user_regs_struct registers = home;
  registers.rip = stub + stub_home_offset;
  registers.orig_rax = ~0ull;
  return registers;
}

inline bool is_64bit(const user_regs_struct& registers) { return registers.cs == 0x33; }

// Bytes that XSAVE writes for every state component this kernel has enabled.
inline std::size_t xsave_size() {
  unsigned eax = 0xd, ebx = 0, ecx = 0, edx = 0;
  asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  return (ebx + 63u) & ~std::size_t{63};
}

}  // namespace arch
