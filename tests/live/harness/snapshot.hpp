// SPDX-License-Identifier: GPL-2.0-only
// What /proc shows of a process tree, in a form in which before and after a checkpoint can be compared: what the kernel
// numbers anew (pipe and socket inodes) is numbered by first appearance, what moves by itself (clocks) is left out.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

namespace live {

// Where a /proc is mounted that shows the pids that are meant in snapshots: "/proc" unless told otherwise.
void look_at_proc(const std::string& mount_point);

// "task 42: maps" → its text.
using Snapshot = std::map<std::string, std::string>;

Snapshot snapshot_of_tree(pid_t root);

// Which threads of a tree sleep, and in which system call (its number, in words), or are stopped.
using Sleepers = std::map<pid_t, std::string>;
Sleepers sleepers_of_tree(pid_t root);
// Whether all of them are back in their calls. Before they are, /proc shows what is between two states: a task on its
// way back into sigsuspend has the mask that it will have afterwards.
bool all_asleep_again(const Sleepers& before, pid_t root);

// Every process of a tree that has this process in it, or is below it, parents first: by its own /proc.
std::vector<pid_t> tree_of(pid_t root);

// One line per difference; parts whose key ends in ": " and one of the ignored names are not looked at.
std::vector<std::string> differences(const Snapshot& before, const Snapshot& after,
                                     const std::vector<std::string>& ignore);

}  // namespace live
