// SPDX-License-Identifier: GPL-2.0-only
// Attributes of a process that only prctl and its kin tell.
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness/live.hpp"

using live::checkpoint_here;
using live::skip;

namespace {

constexpr int set_mdwe = 65, get_mdwe = 66;  // PR_SET_MDWE, PR_GET_MDWE: 6.3
constexpr int get_registrations = 1 << 9;    // MEMBARRIER_CMD_GET_REGISTRATIONS: 6.3

long membarrier(int command) { return ::syscall(SYS_membarrier, command, 0, 0); }

}  // namespace

LIVE_TEST("attributes: memory that is writable and executable stays denied") {
  if (::prctl(set_mdwe, 1, 0, 0, 0) < 0) {
    skip("this kernel has no PR_SET_MDWE");
  }
  checkpoint_here();
  CHECK_EQ(::prctl(get_mdwe, 0, 0, 0, 0), 1);
  CHECK(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}

LIVE_TEST("attributes: membarrier registrations") {
  if (membarrier(get_registrations) < 0) {
    skip("this kernel does not tell the registrations");
  }
  REQUIRE(membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0);
  REQUIRE(membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE) == 0);
  const auto before = membarrier(get_registrations);
  checkpoint_here();
  CHECK_EQ(membarrier(get_registrations), before);
  CHECK_EQ(membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED), 0L);
}

LIVE_TEST("attributes: child subreaper") {
  REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
  checkpoint_here();
  int set = 0;
  CHECK_EQ(::prctl(PR_GET_CHILD_SUBREAPER, &set, 0, 0, 0), 0);
  CHECK_EQ(set, 1);
}
