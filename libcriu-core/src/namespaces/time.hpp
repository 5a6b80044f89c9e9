// SPDX-License-Identifier: LGPL-2.1-only
// Clocks that count from boot. A restored tree must not see them jump, backwards least of all, so it is restored into
// a time namespace whose clocks go on from where they were at the dump.
#pragma once

#include "base/fd.hpp"
#include "image/directory.hpp"
#include "kernel/procfs.hpp"
#include "task/checkpoint.hpp"

namespace criu::namespaces {

// Writes what the clocks show to the root task now. `own_ns`: it has a time namespace other than this process.
void save_clocks(const image::Directory&, const procfs::Task& root, const images::task_kobj_ids_entry& root_ids,
                 const images::task_kobj_ids_entry& own_ids);

// While this lives, children of this process are born into a time namespace with the clocks of the checkpoint. Does
// nothing when there is no image of clocks, or (with a warning) when this kernel has no time namespaces.
class RestoredClocks {
 public:
  RestoredClocks(const image::Directory&, const Checkpoint&);
  ~RestoredClocks();
  RestoredClocks(const RestoredClocks&) = delete;
  RestoredClocks& operator=(const RestoredClocks&) = delete;

 private:
  base::Fd before_;
};

}  // namespace criu::namespaces
