// SPDX-License-Identifier: LGPL-2.1-only
// What a task of a restored tree does from its birth to the jump into the restorer.
#pragma once

#include "memory/restore.hpp"
#include "restore_context.hpp"
#include "restorer/become.hpp"
#include "task/tree.hpp"

namespace criu::task {

// What all tasks need to know of the tree, worked out before the first is born.
struct Family {
  explicit Family(const Checkpoint& checkpoint) : sessions(checkpoint), helpers(group_helpers(checkpoint, sessions)) {}

  Sessions sessions;
  std::multimap<const TaskImage*, pid_t> helpers;
  restorer::Region* regions = nullptr;  // shared; by position in the checkpoint

  // How many arrive at each stage.
  void expect(const Checkpoint& checkpoint, restorer::Shared& shared) const;
};

// Makes the root, which makes the rest. Returns its pid.
pid_t give_birth(RestoreContext&, const Family&, bool as_sibling);

}  // namespace criu::task
