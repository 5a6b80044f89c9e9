// SPDX-License-Identifier: GPL-2.0-only
// The same as parasite.cpp, but compiled with vector registers, and spoiling all of them in each entry.
#include <compel/parasite.hpp>

namespace {

// Every register that the CPU has, in the widest form this code may name without asking.
void spoil() {
  asm volatile(
      ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n pcmpeqd %%xmm\\n, %%xmm\\n\n .endr\n"
      "fninit\n fld1\n fldpi"
      :
      :
      : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
        "xmm13", "xmm14", "xmm15", "memory");
}

void spoil_wide() {
  unsigned low = 7, high = 0, b = 0, c = 0;
  asm volatile("cpuid" : "+a"(low), "=b"(b), "+c"(c), "=d"(high));
  if ((b & (1u << 16)) != 0) {
    asm volatile(
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
        " vpternlogd $255, %%zmm\\n, %%zmm\\n, %%zmm\\n\n .endr\n kxnorw %%k3, %%k3, %%k3"
        :
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
          "xmm13", "xmm14", "xmm15", "memory");
  }
}

double counter = 40.0;

}  // namespace

COMPEL_ENTRY long count(void*) {
  counter += 3.0;
  const long result = static_cast<long>(counter);
  spoil_wide();
  spoil();
  return result;
}

COMPEL_ENTRY long double_it(void* argument) {
  auto* value = static_cast<long*>(argument);
  *value = static_cast<long>(static_cast<double>(*value) * 2.0);
  spoil_wide();
  spoil();
  return compel::rt::syscall(__NR_gettid);
}

COMPEL_ENTRY long spin(void* argument) {
  auto* stop = static_cast<volatile long*>(argument);
  while (*stop == 0 && compel::rt::master_lives()) {
    spoil_wide();
    spoil();
  }
  return 0;
}
