// SPDX-License-Identifier: GPL-2.0-only
#include "checkpoint.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <set>
#include <utility>

#include "base/error.hpp"
#include "text.hpp"

namespace crit {

using base::Error;

Checkpoint::Checkpoint(std::string directory) : path_(std::move(directory)) {
  struct stat st {};
  base::check(::stat(path_.c_str(), &st), "open checkpoint", path_);
  if (!has("pstree.img")) {
    throw Error("no checkpoint", path_ + " has no pstree.img", 0);
  }
  tree_ = all<pb::pstree_entry>("pstree.img");
  check_tree();
  for (auto& entry : all<pb::file_entry>("files.img")) {
    const auto id = entry.id();
    files_.emplace(id, std::move(entry));
  }
  for (auto& entry : all<pb::memfd_inode_entry>("memfd.img")) {
    memfds_.emplace(static_cast<std::uint32_t>(entry.inode_id()), entry);
  }
  for (auto& entry : all<pb::remap_file_path_entry>("remap-fpath.img")) {
    remaps_.emplace(entry.orig_id(), entry);
  }
}

void Checkpoint::check_tree() {
  std::set<std::uint32_t> known{0};
  for (const auto& task : tree_) {
    if (known.count(task.ppid()) == 0 || !known.insert(task.pid()).second) {
      throw Error("corrupt image",
                  fmt::format("{}: task {} of {} is no tree", file("pstree.img"), task.pid(), task.ppid()), 0);
    }
    children_[task.ppid()].push_back(&task);
  }
}

void Checkpoint::depth_first(const std::function<void(const pb::pstree_entry&, std::size_t)>& visit) const {
  // With a stack of its own: a chain of tasks may be long.
  struct Waiting {
    const pb::pstree_entry* task;
    std::size_t depth;
  };
  std::vector<Waiting> stack;
  const auto push_children = [&](std::uint32_t pid, std::size_t depth) {
    const auto found = children_.find(pid);
    if (found != children_.end()) {
      for (auto child = found->second.rbegin(); child != found->second.rend(); ++child) {
        stack.push_back({*child, depth});
      }
    }
  };
  push_children(0, 0);
  while (!stack.empty()) {
    const auto [task, depth] = stack.back();
    stack.pop_back();
    visit(*task, depth);
    push_children(task->pid(), depth + 1);
  }
}

bool Checkpoint::has(const std::string& name) const {
  struct stat st {};
  return ::stat(file(name).c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

std::unique_ptr<Source> Checkpoint::open(const std::string& name) const {
  if (!has(name)) {
    return nullptr;
  }
  auto source = std::make_unique<Source>(file(name));
  read_magic(*source);
  return source;
}

void Checkpoint::fail_missing(const std::string& name) const { throw Error("no such image", file(name), 0); }

std::optional<pb::mm_entry> Checkpoint::mm(std::uint32_t pid) const {
  return first<pb::mm_entry>("mm-" + std::to_string(pid) + ".img");
}

std::optional<pb::task_kobj_ids_entry> Checkpoint::ids(std::uint32_t pid) const {
  return first<pb::task_kobj_ids_entry>("ids-" + std::to_string(pid) + ".img");
}

std::vector<std::uint32_t> Checkpoint::threads(const pb::pstree_entry& task) {
  std::vector<std::uint32_t> all{task.pid()};
  for (int i = 1; i < task.threads_size(); ++i) {
    all.push_back(task.threads(i));
  }
  return all;
}

const pb::file_entry* Checkpoint::find_file(std::uint32_t id) const {
  const auto found = files_.find(id);
  return found == files_.end() ? nullptr : &found->second;
}

const pb::memfd_inode_entry* Checkpoint::find_memfd(std::uint32_t inode_id) const {
  const auto found = memfds_.find(inode_id);
  return found == memfds_.end() ? nullptr : &found->second;
}

const pb::remap_file_path_entry* Checkpoint::find_remap(std::uint32_t file_id) const {
  const auto found = remaps_.find(file_id);
  return found == remaps_.end() ? nullptr : &found->second;
}

std::optional<std::string> Checkpoint::path_of(std::uint32_t file_id) const {
  const auto* entry = find_file(file_id);
  if (entry != nullptr && entry->has_reg()) {
    return entry->reg().name();
  }
  if (entry != nullptr && entry->has_memfd()) {
    if (const auto* inode = find_memfd(entry->memfd().inode_id())) {
      return "/memfd:" + inode->name();
    }
  }
  return std::nullopt;
}

std::string Checkpoint::describe(pb::fd_types type, std::uint32_t id) const {
  const auto* entry = find_file(id);
  switch (type) {
    case pb::REG:
      return path_of(id).value_or("unknown path");
    case pb::PIPE:
      return entry != nullptr && entry->has_pipe() ? fmt::format("pipe[{}]", entry->pipe().pipe_id()) : "pipe[?]";
    case pb::UNIXSK: {
      if (entry == nullptr || !entry->has_usk()) {
        return "unix[?]";
      }
      const auto& socket = entry->usk();
      return fmt::format("unix[{} ({})]{}", socket.ino(), socket.peer(),
                         socket.name().empty() ? "" : " " + quoted_printable(socket.name()));
    }
    default:
      return fmt::format("{}.{}", pb::fd_types_Name(type), id);
  }
}

}  // namespace crit
