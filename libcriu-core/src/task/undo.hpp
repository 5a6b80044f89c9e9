// SPDX-License-Identifier: LGPL-2.1-only
// What the end of a process adds to System V semaphores (SEM_UNDO): a lock that is held so is free when its holder
// dies.
#pragma once

#include <vector>

#include "task/dump.hpp"

namespace criu {
struct RestoreContext;
struct TaskImage;
}  // namespace criu

namespace criu::task {

// Asks all tasks, if there are semaphores at all. In an IPC namespace that the tree shares with others an adjustment is
// in the way: with the end of the tree the semaphore is given back, and it may then be anybody's.
void save_undo(DumpContext&, FrozenTree&, const Ids&, std::vector<SavedTask>&);

// Inside the task, before it has threads.
void restore_undo(const TaskImage&);

}  // namespace criu::task
