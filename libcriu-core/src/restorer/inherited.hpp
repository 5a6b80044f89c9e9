// SPDX-License-Identifier: LGPL-2.1-only
// What every task of a restore has from the master by being forked: looked at once, before the first is.
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <vector>

#include "memory/areas.hpp"
#include "memory/vdso.hpp"

namespace criu::restorer {

struct Inherited {
  // Where not to map; each task adds what it maps for its children. Only the large things: what the C library maps
  // meanwhile is far away, and is noticed if it is not (memory::Space::map).
  std::vector<memory::Interval> mappings;
  memory::OwnVdso vdso;
  rlimit limits[RLIM_NLIMITS];
  std::uint64_t changed_actions;  // signals, bit number - 1, whose action is not the default one
  int personality;                // of personality(2)

  static Inherited of_this_process();
};

}  // namespace criu::restorer
