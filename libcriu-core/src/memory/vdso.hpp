// SPDX-License-Identifier: LGPL-2.1-only
// The kernel's code in every address space, and the data pages before it.
#pragma once

#include <vector>

#include "memory/areas.hpp"
#include "restorer/plan.hpp"

namespace criu {
struct TaskImage;
}

namespace criu::memory {

// This process's vDSO and its data pages, ascending; all of them are next to each other.
struct OwnVdso {
  std::vector<Interval> data;  // [vvar], and since 6.13 [vvar_vclock]
  Interval code{0, 0};
  std::uint64_t size() const { return code.end == 0 ? 0 : code.end - (data.empty() ? code.start : data.front().start); }
};
OwnVdso own_vdso();

// How this kernel's vDSO gets to where the saved one was: one part a mapping, parked at `parking` meanwhile. Empty
// when the task had none.
std::vector<restorer::Part> plan_vdso(const OwnVdso&, const TaskImage&, std::uint64_t parking);

}  // namespace criu::memory
