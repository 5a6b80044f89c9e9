// SPDX-License-Identifier: GPL-2.0-only
// What the tests run inside their victims.
#include <compel/parasite.hpp>

namespace {

int counter = 40;                              // lies in .data
int* volatile where = &counter;                // needs a relocation
const char* volatile words[] = {"no", "yes"};  // and so do these
long untouched[100];                           // lies in .bss

}  // namespace

COMPEL_ENTRY long ids(void* argument) {
  auto* out = static_cast<long*>(argument);
  out[0] = compel::rt::syscall(__NR_getpid);
  out[1] = compel::rt::syscall(__NR_gettid);
  return 7;
}

COMPEL_ENTRY long count(void*) {
  ++*where;
  untouched[5] += 2;
  compel::rt::log("counter %d, %s, %ld %08x %c", counter, words[1], untouched[5], 0xbeefu, 'z');
  return counter + untouched[5];
}

COMPEL_ENTRY long double_it(void* argument) {
  auto* value = static_cast<long*>(argument);
  *value *= 2;
  return compel::rt::syscall(__NR_gettid);
}

COMPEL_ENTRY long write_fd(void* argument) {
  const long fd = *static_cast<long*>(argument);
  return compel::rt::syscall(__NR_write, fd, reinterpret_cast<long>("hello"), 5);
}

COMPEL_ENTRY long crash(void*) {
  volatile int* volatile nowhere = nullptr;
  *nowhere = 1;
  return 0;
}

COMPEL_ENTRY long chatter(void*) {
  for (int i = 0; i < 2000; ++i) {
    compel::rt::log("line %d of the long talk", i);
  }
  return 0;
}

// Until it is told to stop, or its master is gone.
COMPEL_ENTRY long spin(void* argument) {
  auto* stop = static_cast<volatile long*>(argument);
  long rounds = 0;
  while (*stop == 0 && compel::rt::master_lives()) {
    ++rounds;
    compel::rt::syscall(__NR_sched_yield);
  }
  return rounds;
}
