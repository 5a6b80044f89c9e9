// SPDX-License-Identifier: LGPL-2.1-only
// The last step of library code in a restored task: lays out the restorer's region and jumps into it.
#pragma once

#include "memory/restore.hpp"
#include "restore_context.hpp"

namespace criu::restorer {

// Where the restorer's region lies in each task, so that the master can unmap it in the end. In shared memory, one
// per task in the order of the checkpoint.
struct Region {
  std::uint64_t start, size;
};

// Where a task is at home. Entered last of all, since files are opened by their names in the restorer's own root.
struct Surroundings {
  int mounts = -1;  // the namespace; -1: the restorer's own
  base::Fd root;    // none: the restorer's own
  base::Fd directory;
};

[[noreturn]] void become(RestoreContext&, const TaskImage&, memory::Restored&, const Surroundings&, Region&);

}  // namespace criu::restorer
