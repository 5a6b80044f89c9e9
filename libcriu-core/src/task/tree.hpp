// SPDX-License-Identifier: LGPL-2.1-only
// Making the processes of a tree again: with their pids, parents, sessions and process groups.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "base/error.hpp"
#include "task/checkpoint.hpp"

namespace criu::task {

// How a task gets into its session. A process can join a session only by being born into it.
enum class Birth {
  early,       // by its parent, before that makes a session of its own
  late,        // by its parent, after that
  by_sibling,  // by the leader of its session, as a sibling of that: whoever made it once is dead
  by_helper,   // the leader of its session is gone: a helper leads it for as long as it takes to make the members
};

class Sessions {
 public:
  // Throws when no order of births gives the sessions of the checkpoint.
  explicit Sessions(const Checkpoint&);
  Birth birth(const TaskImage& child) const;
  // Sessions for which the parent makes a helper, each with the children that the helper makes.
  using Helpers = std::map<pid_t, std::vector<const TaskImage*>>;
  const Helpers& helpers_of(const TaskImage& parent) const;
  std::size_t helper_count() const;
  bool has_helper(pid_t session) const;

 private:
  void require(const TaskImage& task, pid_t session);
  void place(const TaskImage& task, pid_t session);

  std::map<pid_t, const TaskImage*> leaders_;
  std::map<const TaskImage*, pid_t> born_in_;
  std::map<const TaskImage*, Birth> births_;
  std::map<const TaskImage*, Helpers> helpers_;
};

// Process groups whose leader is not in the tree any more: a helper process with that pid is made for the time it
// takes the members to join. By the task that makes the helper.
std::multimap<const TaskImage*, pid_t> group_helpers(const Checkpoint&, const Sessions&);

// The processes that are gone and that open files of /proc tell of.
std::set<pid_t> processes_told_of(const Checkpoint&);

// The Error of a pid that somebody else has.
base::Error pid_is_taken(pid_t pid, const std::string& who);

// Of tasks, groups, sessions and whatever else of the tree is to have them again; ascending, some repeatedly.
std::vector<pid_t> needed_pids(const Checkpoint&);

// Forks a process with this pid (in the current pid namespace). Returns the pid in the parent, 0 in the child.
// `flags`: further clone flags. A pid that is taken is an Error that says by whom.
pid_t fork_with_pid(pid_t pid, std::uint64_t flags, int exit_signal, const std::string& who);

}  // namespace criu::task
