// SPDX-License-Identifier: LGPL-2.1-only
// A checkpoint as it was read: the messages of the images, linked to each other and checked.
#pragma once

#include <core.pb.h>
#include <fdinfo.pb.h>
#include <fs.pb.h>
#include <google/protobuf/arena.h>
#include <inventory.pb.h>
#include <mm.pb.h>
#include <pstree.pb.h>
#include <remap-file-path.pb.h>
#include <seccomp.pb.h>
#include <signal.h>
#include <tty.pb.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "image/directory.hpp"
#include "sockets/queues.hpp"

namespace criu {

enum class TaskState : unsigned { alive = 1, dead = 2, stopped = 3 };

// A task of the tree. Lives as long as the checkpoint.
struct TaskImage {
  images::pstree_entry entry;
  images::core_entry& core;                                         // the leader's
  google::protobuf::RepeatedPtrField<images::core_entry>& threads;  // all others, in the order of entry.threads
  images::task_kobj_ids_entry ids;                                  // not for zombies
  images::mm_entry& mm;                                             // not for zombies
  images::fs_entry fs;                                              // not for zombies
  std::vector<images::fdinfo_entry> fds;                            // empty when the table is the parent's
  std::size_t index = 0;                                            // among the tasks of the checkpoint
  TaskImage* parent = nullptr;
  std::vector<TaskImage*> children;

  explicit TaskImage(google::protobuf::Arena&);
  pid_t pid() const { return static_cast<pid_t>(entry.pid()); }
  TaskState state() const { return static_cast<TaskState>(core.tc().task_state()); }
  bool alive() const { return state() != TaskState::dead; }
  bool shares_files() const { return parent != nullptr && alive() && ids.files_id() == parent->ids.files_id(); }
  int exit_signal() const {
    const auto& extension = core.tc().extension();
    return extension.has_exit_signal() ? static_cast<int>(extension.exit_signal()) : SIGCHLD;
  }
  std::string name() const { return "task " + std::to_string(entry.pid()) + " (" + core.tc().comm() + ")"; }
};

struct Checkpoint {
  // The bulk of the messages lies in memory that forked tasks share: each that is forked would pay for its pages.
  std::unique_ptr<google::protobuf::Arena> arena;
  images::inventory_entry inventory;
  std::vector<std::unique_ptr<TaskImage>> tasks;                      // parents before their children, the root first
  std::map<std::pair<int, std::uint32_t>, images::file_entry> files;  // by type and id
  std::vector<images::remap_file_path_entry> remaps;
  images::seccomp_entry seccomp;
  sockets::Queues queues;
  std::map<std::uint32_t, images::tty_info_entry> terminals;  // by id
  std::uint32_t outer_session = 0;                            // the one of a shell job, when it was dumped
  // The sockets of a network of UNIX peers are made together: by number, the one that stands for all.
  std::unordered_map<std::uint32_t, std::uint32_t> unix_groups;
  std::unordered_map<std::uint32_t, pid_t> unix_makers;  // of these, the task that is to make it, where that matters

  Checkpoint();
  TaskImage& add_task();
  TaskImage& root() const { return *tasks.front(); }
  const images::file_entry* find_file(int type, std::uint32_t id) const;
  // The same where only the id is known, which no two files share.
  const images::file_entry& file(std::uint32_t id, const std::string& referrer) const;
  // A file that something refers to; missing it is an Error that names the referrer.
  const images::file_entry& file(int type, std::uint32_t id, const std::string& referrer) const;
};

// Reads and checks all images that describe the tree, before the first task is made.
Checkpoint read_checkpoint(const image::Directory& dir);

// A tree whose root leads no session of its own (a job of some shell) joins the session and group of whoever restores
// it. An Error without --shell-job.
void adopt_session(Checkpoint&, bool shell_job);

}  // namespace criu
