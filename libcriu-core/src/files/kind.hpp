// SPDX-License-Identifier: LGPL-2.1-only
// The table of kinds: one entry for each kind of open file, both directions. The orchestrations know the table only.
#pragma once

#include <fdinfo.pb.h>
#include <sys/stat.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "kernel/procfs_fd.hpp"

namespace criu {

struct Checkpoint;
struct TaskImage;
struct RestoreContext;

namespace files {

class Saver;

using kernel::FdInfo;

// An open file description that was met for the first time.
struct Description {
  pid_t pid;         // a task that has it open,
  int fd;            // and its number there
  std::string link;  // where /proc/PID/fd/N points
  struct stat stat;
  FdInfo info;
  int own = -1;               // our own copy of the descriptor
  std::string referrer = {};  // for messages, where it is no descriptor of the task
  std::string what() const;   // "fd 7 of task 42 (link)", for messages
};

// A restored description, in the task that made it.
struct Made {
  const images::file_entry* entry;
  int fd;
};

struct Kind {
  images::fd_types type;
  const char* name;

  // Dump. Whether a description is of this kind: the first of the table that says so has it.
  bool (*recognise)(const Description&) = nullptr;
  // Fills the part of the entry that is the kind's own (its id and owner are there already). What cannot be saved is
  // an Error; the caller goes on to find more of them.
  void (*save)(Saver&, const Description&, images::file_entry&) = nullptr;

  // Completes the entry once all descriptors of all tasks are known; `own` is gone by then. nullptr: nothing to add.
  void (*save_late)(Saver&, const Description&, images::file_entry&) = nullptr;

  // Where the kind keeps the signal owner; nullptr when it has none.
  images::fown_entry* (*owner)(images::file_entry&) = nullptr;

  // Restore. Entries with the same group are made together by one task (the ends of a pipe); 0: each alone.
  std::uint64_t (*group)(const Checkpoint&, const images::file_entry&) = nullptr;
  // The task that is to make a group, whether it has one of it open or not; nullptr or 0: the first that has one.
  pid_t (*maker)(const Checkpoint&, const images::file_entry&) = nullptr;
  // Makes the descriptions of one group, in the same order, inside the task that owns them.
  std::vector<base::Fd> (*make)(RestoreContext&, std::span<const images::file_entry* const>) = nullptr;
  // Called in the task that made the group, once every description of the tree exists and the task's own descriptors
  // are in place.
  void (*connect)(RestoreContext&, const TaskImage&, std::span<const Made>) = nullptr;
  // For what must see nothing of the restore: called in the master with a copy of the descriptor, when all tasks stand
  // at the last gate and none of them opens a file any more.
  void (*finish)(RestoreContext&, const Made&) = nullptr;
  // Which entries need that; nullptr: all.
  bool (*is_late)(const images::file_entry&) = nullptr;
};

// All kinds, in the order in which they are asked.
std::span<const Kind* const> kinds();
// The kind of an entry; a type that is not supported is an Error that names it.
const Kind& kind_of(const images::file_entry&);

}  // namespace files
}  // namespace criu
