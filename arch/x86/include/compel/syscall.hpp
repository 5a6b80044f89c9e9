// SPDX-License-Identifier: LGPL-2.1-only
// Raw system calls, for code that has no libc: results are the kernel's own, a negative errno on failure. Needs nothing
// around it, neither a parasite context nor a stack protector nor errno.
#pragma once

#include <asm/unistd.h>

namespace compel::rt {

inline long syscall(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  long result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

}  // namespace compel::rt
