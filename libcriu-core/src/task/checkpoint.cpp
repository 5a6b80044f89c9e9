// SPDX-License-Identifier: LGPL-2.1-only
#include "task/checkpoint.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <set>

#include "base/error.hpp"
#include "sockets/unix.hpp"

namespace criu {

using base::Error;

namespace {

[[noreturn]] void corrupt(const std::string& where, const std::string& why) {
  throw Error("corrupt checkpoint", where + ": " + why, 0);
}

images::inventory_entry read_inventory(const image::Directory& dir) {
  auto inventory = dir.only<images::inventory_entry>(image::type::inventory);
  if (inventory.img_version() == 0) {
    throw Error("cannot restore", "inventory.img", 0,
                "this is a pre-dump: memory only, a link of an incremental chain");
  }
  if (inventory.img_version() > 2) {
    corrupt("inventory.img", fmt::format("image version {} is not known", inventory.img_version()));
  }
  if (!inventory.fdinfo_per_id()) {
    corrupt("inventory.img", "written by a CRIU too old: descriptors are not listed per table");
  }
  if (!inventory.has_root_ids()) {
    corrupt("inventory.img", "no root_ids");
  }
  return inventory;
}

void check_core(const TaskImage& task, const images::core_entry& core, bool leader, const std::string& where) {
  if (core.mtype() != images::core_entry_march_X86_64) {
    throw Error("cannot restore", where, 0, "it was dumped on another kind of processor");
  }
  if (leader) {
    if (!core.has_tc()) {
      corrupt(where, "no task part");
    }
    const auto state = core.tc().task_state();
    if (state < 1 || state > 3) {
      corrupt(where, fmt::format("task state {}", state));
    }
    if (!task.alive()) {
      return;
    }
    if (core.tc().sigactions_size() != 62) {
      corrupt(where, fmt::format("{} signal actions instead of 62", core.tc().sigactions_size()));
    }
    if (!core.tc().has_timers() || !core.tc().has_rlimits() || !core.tc().has_signals_s()) {
      corrupt(where, "timers, limits or pending signals are missing (images of a CRIU before 1.3 are not supported)");
    }
  } else if (core.has_tc() || core.has_ids()) {
    corrupt(where, "a thread with a task part");
  }
  if (!core.has_thread_info() || !core.has_thread_core() || !core.thread_core().has_creds()) {
    corrupt(where, "registers or credentials are missing");
  }
}

// Sorted, inside of each other's way, and page-aligned: whatever maps them later relies on it.
void check_areas(const TaskImage& task) {
  constexpr std::uint32_t guard = 0x10000;
  std::uint64_t last = 0;
  for (const auto& vma : task.mm.vmas()) {
    const auto where = fmt::format("mm-{}.img, area {:#x}", task.pid(), vma.start());
    if (vma.start() >= vma.end() || (vma.start() | vma.end()) % 4096 != 0 ||
        vma.end() > (std::uint64_t{1} << 63 | 0xff600000U)) {
      if (vma.start() < 0xffffffffff600000) {
        corrupt(where, "not a range of pages");
      }
    }
    if (vma.status() == guard) {
      continue;
    }
    if (vma.start() < last) {
      corrupt(where, "overlaps or precedes the area before it");
    }
    last = vma.end();
  }
}

void read_task(const image::Directory& dir, TaskImage& task) {
  const auto pid = task.entry.pid();
  dir.require(image::type::core, pid).only(task.core);
  check_core(task, task.core, true, fmt::format("core-{}.img", pid));
  if (!task.alive()) {
    return;
  }
  for (int i = 1; i < task.entry.threads_size(); ++i) {
    const auto tid = task.entry.threads(i);
    auto& thread = *task.threads.Add();
    dir.require(image::type::core, tid).only(thread);
    check_core(task, thread, false, fmt::format("core-{}.img", tid));
  }
  task.ids = dir.only<images::task_kobj_ids_entry>(image::type::ids, pid);
  dir.require(image::type::mm, pid).only(task.mm);
  task.fs = dir.only<images::fs_entry>(image::type::fs, pid);
  check_areas(task);
}

void read_descriptors(const image::Directory& dir, TaskImage& task) {
  if (!task.alive() || task.shares_files()) {
    return;
  }
  auto reader = dir.open(image::type::fdinfo, task.ids.files_id());
  std::set<std::uint32_t> seen;
  images::fdinfo_entry entry;
  while (reader && reader->next(entry)) {
    if (entry.fd() > 0x7fffffff || !seen.insert(entry.fd()).second) {
      corrupt(reader->name(), fmt::format("descriptor {} twice or out of range", entry.fd()));
    }
    task.fds.push_back(entry);
  }
}

void read_tree(const image::Directory& dir, Checkpoint& checkpoint) {
  auto reader = dir.require(image::type::pstree);
  std::unordered_map<std::uint32_t, TaskImage*> by_pid;
  std::set<std::uint32_t> ids;
  images::pstree_entry entry;
  while (reader.next(entry)) {
    const auto where = fmt::format("pstree.img, task {}", entry.pid());
    if (entry.pid() == 0 || entry.pid() > 0x3fffffff || entry.threads_size() == 0) {
      corrupt(where, "no pid or no threads");
    }
    if (!ids.insert(entry.pid()).second) {
      corrupt(where, "there twice");
    }
    for (int i = 1; i < entry.threads_size(); ++i) {
      if (entry.threads(i) == 0 || !ids.insert(entry.threads(i)).second) {
        corrupt(where, fmt::format("thread {} there twice", entry.threads(i)));
      }
    }
    auto& task = checkpoint.add_task();
    task.entry = entry;
    if (entry.ppid() != 0) {
      const auto parent = by_pid.find(entry.ppid());
      if (parent == by_pid.end()) {
        corrupt(where, fmt::format("its parent {} does not come before it", entry.ppid()));
      }
      task.parent = parent->second;
      task.parent->children.push_back(&task);
    } else if (checkpoint.tasks.size() > 1) {
      corrupt(where, "a second root");
    }
    by_pid[entry.pid()] = &task;
  }
  if (checkpoint.tasks.empty()) {
    corrupt("pstree.img", "no tasks");
  }
  for (auto& task : checkpoint.tasks) {
    read_task(dir, *task);
    if (task->parent != nullptr && !task->parent->alive()) {
      corrupt(fmt::format("pstree.img, task {}", task->pid()), "its parent is a zombie");
    }
  }
  if (!checkpoint.root().alive()) {
    throw Error("cannot restore", checkpoint.root().name(), 0, "the root of the tree is a zombie");
  }
}

void read_files(const image::Directory& dir, Checkpoint& checkpoint) {
  auto reader = dir.open(image::type::files);
  images::file_entry entry;
  while (reader && reader->next(entry)) {
    const auto key = std::pair{static_cast<int>(entry.type()), entry.id()};
    if (!checkpoint.files.emplace(key, entry).second) {
      corrupt("files.img", fmt::format("file {} there twice", entry.id()));
    }
  }
  auto remaps = dir.open(image::type::remap_fpath);
  images::remap_file_path_entry remap;
  while (remaps && remaps->next(remap)) {
    checkpoint.remaps.push_back(remap);
  }
}

void read_terminals(const image::Directory& dir, Checkpoint& checkpoint) {
  auto reader = dir.open(image::type::tty_info);
  images::tty_info_entry entry;
  while (reader && reader->next(entry)) {
    if (entry.type() == images::PTY && !entry.has_pty()) {
      corrupt(reader->name(), fmt::format("terminal {} is a pty without a number", entry.id()));
    }
    if (!checkpoint.terminals.emplace(entry.id(), entry).second) {
      corrupt(reader->name(), fmt::format("terminal {} there twice", entry.id()));
    }
  }
}

}  // namespace

TaskImage::TaskImage(google::protobuf::Arena& arena)
    : core(*google::protobuf::Arena::CreateMessage<images::core_entry>(&arena)),
      threads(*google::protobuf::Arena::CreateMessage<google::protobuf::RepeatedPtrField<images::core_entry>>(&arena)),
      mm(*google::protobuf::Arena::CreateMessage<images::mm_entry>(&arena)) {}

Checkpoint::Checkpoint() {
  google::protobuf::ArenaOptions options;
  options.start_block_size = 64 << 10;
  options.max_block_size = 1 << 20;
  options.block_alloc = [](std::size_t size) {
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? throw Error("find memory for the images", {}, errno) : at;
  };
  options.block_dealloc = [](void* at, std::size_t size) { ::munmap(at, size); };
  arena = std::make_unique<google::protobuf::Arena>(options);
}

TaskImage& Checkpoint::add_task() {
  tasks.push_back(std::make_unique<TaskImage>(*arena));
  tasks.back()->index = tasks.size() - 1;
  return *tasks.back();
}

const images::file_entry* Checkpoint::find_file(int type, std::uint32_t id) const {
  const auto found = files.find({type, id});
  return found == files.end() ? nullptr : &found->second;
}

const images::file_entry& Checkpoint::file(int type, std::uint32_t id, const std::string& referrer) const {
  if (const auto* found = find_file(type, id)) {
    return *found;
  }
  corrupt(referrer,
          fmt::format("refers to file {} of type {}, which files.img does not have", id,
                      images::fd_types_IsValid(type) ? images::fd_types_Name(static_cast<images::fd_types>(type))
                                                     : std::to_string(type)));
}

const images::file_entry& Checkpoint::file(std::uint32_t id, const std::string& referrer) const {
  for (int type = images::fd_types_MIN; type <= images::PIDFD; ++type) {
    if (const auto* found = find_file(type, id)) {
      return *found;
    }
  }
  if (const auto* found = find_file(images::IO_URING, id)) {
    return *found;
  }
  corrupt(referrer, fmt::format("refers to file {}, which files.img does not have", id));
}

Checkpoint read_checkpoint(const image::Directory& dir) {
  Checkpoint checkpoint;
  checkpoint.inventory = read_inventory(dir);
  read_tree(dir, checkpoint);
  for (auto& task : checkpoint.tasks) {
    read_descriptors(dir, *task);
  }
  read_files(dir, checkpoint);
  read_terminals(dir, checkpoint);
  checkpoint.queues = sockets::Queues(dir);
  checkpoint.unix_groups = sockets::unix_groups(checkpoint);
  checkpoint.unix_makers = sockets::unix_makers(checkpoint);
  if (auto reader = dir.open(image::type::seccomp)) {
    reader->only(checkpoint.seccomp);
  }
  return checkpoint;
}

void adopt_session(Checkpoint& checkpoint, bool shell_job) {
  const auto session = checkpoint.root().entry.sid();
  if (session == checkpoint.root().entry.pid()) {
    return;
  }
  if (!shell_job) {
    throw Error("cannot restore",
                fmt::format("{} belongs to session {}, which is not of this tree", checkpoint.root().name(), session),
                0, "--shell-job joins it to the session of the caller");
  }
  std::set<std::uint32_t> present;
  for (const auto& task : checkpoint.tasks) {
    present.insert(task->entry.pid());
  }
  checkpoint.outer_session = session;
  const auto group = checkpoint.root().entry.pgid();
  for (auto& task : checkpoint.tasks) {
    if (task->entry.sid() == session) {
      task->entry.set_sid(static_cast<std::uint32_t>(::getsid(0)));
      if (task->entry.pgid() == group && !present.contains(group)) {
        task->entry.set_pgid(static_cast<std::uint32_t>(::getpgrp()));
      }
    }
  }
}

}  // namespace criu
