// SPDX-License-Identifier: LGPL-2.1-only
// What a task of a restored tree does from its birth to the jump into the restorer.
#pragma once

#include <set>

#include "memory/restore.hpp"
#include "restore_context.hpp"
#include "restorer/become.hpp"
#include "task/tree.hpp"

namespace criu::task {

// The processes of this restore, in memory that all of them share. The pids in the images are only wishes: whoever has
// one that we did not get is a stranger.
struct Births {
  std::uint32_t count;

  pid_t* pids() { return reinterpret_cast<pid_t*>(this + 1); }
  void add(pid_t pid) {
    __atomic_store_n(&pids()[__atomic_fetch_add(&count, 1, __ATOMIC_ACQ_REL)], pid, __ATOMIC_RELEASE);
  }
  // It has been waited for, and its pid may go to anybody.
  void remove(pid_t pid);
};

// What all tasks need to know of the tree, worked out before the first is born.
struct Family {
  explicit Family(const Checkpoint& checkpoint);

  Sessions sessions;
  std::multimap<const TaskImage*, pid_t> helpers;
  // Those of the helpers that files of /proc tell of: they stay until all files are made.
  std::set<pid_t> told_of;
  std::vector<memory::Restored> memories;  // by position in the checkpoint; each task fills its own
  restorer::Region* regions = nullptr;     // shared; the same
  Births* births = nullptr;                // shared

  // Finds out what is to be mapped and filled: once for all, where code and heap are warm. Each task would touch pages
  // of its own for it.
  void study_memories(const RestoreContext&);

  std::size_t size_of_births(const Checkpoint& checkpoint) const;

  // How many arrive at each stage.
  void expect(const Checkpoint& checkpoint, restorer::Shared& shared) const;
};

// Makes the root, which makes the rest. Returns its pid. `flags`: further clone flags.
pid_t give_birth(RestoreContext&, Family&, std::uint64_t flags);

}  // namespace criu::task
