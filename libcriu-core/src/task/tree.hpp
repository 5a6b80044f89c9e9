// SPDX-License-Identifier: LGPL-2.1-only
// Making the processes of a tree again: with their pids, parents, sessions and process groups.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "task/checkpoint.hpp"

namespace criu::task {

// A process can join a session only by being born into it. So a task that leads a session of its own makes the
// children of its old session before it calls setsid, and the others afterwards. This works out which are which.
class Sessions {
 public:
  // Throws when no order of births gives the sessions of the checkpoint.
  explicit Sessions(const Checkpoint&);
  // Whether the child is to be made before its parent's setsid.
  bool born_before_setsid(const TaskImage& child) const { return early_.contains(&child); }

 private:
  void require(const TaskImage& task, pid_t session);

  std::map<const TaskImage*, pid_t> born_in_;
  std::set<const TaskImage*> early_;
};

// Process groups whose leader is not in the tree any more: a helper process with that pid is made for the time it
// takes the members to join. By the task that makes the helper.
std::multimap<const TaskImage*, pid_t> group_helpers(const Checkpoint&);

// Forks a process with this pid (in the current pid namespace). Returns the pid in the parent, 0 in the child.
// `flags`: further clone flags. A pid that is taken is an Error that says by whom.
pid_t fork_with_pid(pid_t pid, std::uint64_t flags, const std::string& who);

}  // namespace criu::task
