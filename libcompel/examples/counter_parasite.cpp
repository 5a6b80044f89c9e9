// SPDX-License-Identifier: LGPL-2.1-only
// Runs inside the other process: counts by as much as its master says.
#include <compel/parasite.hpp>

static long counter;

COMPEL_ENTRY long count(void* argument) {
  counter += *static_cast<long*>(argument);
  compel::rt::log("task %ld has counted to %ld", compel::rt::syscall(__NR_getpid), counter);
  return counter;
}
