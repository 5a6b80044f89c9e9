// SPDX-License-Identifier: LGPL-2.1-only
#include "task/tree.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <set>

#include "base/error.hpp"
#include "files/terminals.hpp"
#include "log.hpp"
#include "task/last_pid.hpp"

namespace criu::task {

using base::Error;

void Sessions::require(const TaskImage& task, pid_t session) {
  // A task that leads its session could have been born into any; others are in the one they were born into.
  const auto [known, fresh] = born_in_.emplace(&task, session);
  if (!fresh && known->second != session) {
    throw Error("cannot restore",
                fmt::format("{}: it and its children need sessions {} and {} to be born into", task.name(),
                            known->second, session),
                0);
  }
  if (fresh && task.parent != nullptr) {
    place(task, session);
  }
}

void Sessions::place(const TaskImage& task, pid_t session) {
  const auto& parent = *task.parent;
  const auto parent_session = static_cast<pid_t>(parent.entry.sid());
  if (parent_session == session) {
    births_[&task] = Birth::late;
    return;
  }
  const auto leader = leaders_.find(session);
  if (leader != leaders_.end() && leader->second->parent == &parent && leader->second->alive()) {
    births_[&task] = Birth::by_sibling;
    return;
  }
  // Some ancestor may have been in the session before it made its own.
  for (const auto* ancestor = &parent; ancestor != nullptr; ancestor = ancestor->parent) {
    if (static_cast<pid_t>(ancestor->entry.sid()) == session) {
      births_[&task] = Birth::early;
      return require(parent, session);
    }
    if (static_cast<pid_t>(ancestor->entry.sid()) != ancestor->pid()) {
      break;
    }
  }
  if (leader != leaders_.end()) {
    throw Error("cannot restore", fmt::format("{}: no ancestor was ever in its session {}", task.name(), session), 0);
  }
  births_[&task] = Birth::by_helper;
  helpers_[&parent][session].push_back(&task);
}

Sessions::Sessions(const Checkpoint& checkpoint) {
  for (const auto& task : checkpoint.tasks) {
    if (static_cast<pid_t>(task->entry.sid()) == task->pid()) {
      leaders_[task->pid()] = task.get();
    }
  }
  for (const auto& task : checkpoint.tasks) {
    if (static_cast<pid_t>(task->entry.sid()) != task->pid()) {
      require(*task, static_cast<pid_t>(task->entry.sid()));
    }
  }
}

Birth Sessions::birth(const TaskImage& child) const {
  const auto found = births_.find(&child);
  return found == births_.end() ? Birth::late : found->second;
}

const Sessions::Helpers& Sessions::helpers_of(const TaskImage& parent) const {
  static const Helpers none;
  const auto found = helpers_.find(&parent);
  return found == helpers_.end() ? none : found->second;
}

std::size_t Sessions::helper_count() const {
  std::size_t count = 0;
  for (const auto& [parent, helpers] : helpers_) {
    count += helpers.size();
  }
  return count;
}

bool Sessions::has_helper(pid_t session) const {
  return std::any_of(helpers_.begin(), helpers_.end(),
                     [&](const auto& of_parent) { return of_parent.second.contains(session); });
}

std::multimap<const TaskImage*, pid_t> group_helpers(const Checkpoint& checkpoint, const Sessions& sessions) {
  std::set<pid_t> present;
  for (const auto& task : checkpoint.tasks) {
    present.insert(task->pid());
  }
  present.insert(::getpgrp());  // a shell job joins ours
  std::multimap<const TaskImage*, pid_t> helpers;
  for (const auto& task : checkpoint.tasks) {
    const auto group = static_cast<pid_t>(task->entry.pgid());
    // A zombie can neither fork nor wait; some living member, or else the parent in the same session, makes it.
    const TaskImage* maker = task->alive() ? task.get() : task->parent;
    if (present.insert(group).second && !sessions.has_helper(group)) {
      helpers.emplace(maker, group);
    }
  }
  for (const auto& [leader, group] : files::foreground_groups(checkpoint)) {
    if (present.insert(group).second && !sessions.has_helper(group)) {
      helpers.emplace(leader, group);
    }
  }
  return helpers;
}

std::set<pid_t> processes_told_of(const Checkpoint& checkpoint) {
  std::set<pid_t> gone;
  for (const auto& remap : checkpoint.remaps) {
    if (remap.has_remap_type() && remap.remap_type() == images::PROCFS) {
      gone.insert(static_cast<pid_t>(remap.remap_id()));
    }
  }
  if (gone.empty()) {
    return gone;
  }
  for (const auto& task : checkpoint.tasks) {
    for (const auto tid : task->entry.threads()) {
      if (gone.contains(static_cast<pid_t>(tid))) {
        throw Error("corrupt checkpoint",
                    fmt::format("remap-fpath.img: process {} is not gone, it is of {}", tid, task->name()), 0);
      }
    }
  }
  return gone;
}

namespace {

std::string holder_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/comm", pid));
  std::string comm;
  std::getline(file, comm);
  return comm.empty() ? "a thread or process group" : "'" + comm + "'";
}

}  // namespace

base::Error pid_is_taken(pid_t pid, const std::string& who) {
  return {"pid is taken", fmt::format("{} needs pid {}, which {} has", who, pid, holder_of(pid)), EEXIST,
          "stop that one, or restore into a pid namespace of its own, as criu-cli --pidns does"};
}

std::vector<pid_t> needed_pids(const Checkpoint& checkpoint) {
  std::vector<pid_t> pids;
  for (const auto& task : checkpoint.tasks) {
    pids.insert(pids.end(),
                {task->pid(), static_cast<pid_t>(task->entry.pgid()), static_cast<pid_t>(task->entry.sid())});
    pids.insert(pids.end(), task->entry.threads().begin(), task->entry.threads().end());
  }
  for (const auto& remap : checkpoint.remaps) {
    pids.push_back(static_cast<pid_t>(remap.remap_id()));
  }
  for (const auto& [leader, group] : files::foreground_groups(checkpoint)) {
    pids.push_back(group);
  }
  std::sort(pids.begin(), pids.end());
  return pids;
}

pid_t fork_with_pid(pid_t pid, std::uint64_t flags, int exit_signal, const std::string& who) {
  if (LastPid::needed()) {
    return LastPid::fork(pid, flags, exit_signal, who);
  }
  // What fork(2) of the C library does beyond the system call: it keeps the new thread's id for itself.
  int* own_tid = nullptr;
  ::prctl(PR_GET_TID_ADDRESS, &own_tid, 0, 0, 0);
  clone_args args{};
  args.flags = flags | (own_tid != nullptr ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0);
  args.child_tid = reinterpret_cast<std::uint64_t>(own_tid);
  args.exit_signal = (flags & CLONE_PARENT) != 0 ? 0 : static_cast<std::uint64_t>(exit_signal);
  args.set_tid = reinterpret_cast<std::uint64_t>(&pid);
  args.set_tid_size = 1;
  const auto result = ::syscall(SYS_clone3, &args, sizeof args);
  if (result < 0 && errno == EEXIST) {
    throw pid_is_taken(pid, who);
  }
  if (result < 0) {
    const int error = errno;
    if (LastPid::is_needed_after(error)) {
      LOG_INFO("clone3 does not give pids here ({}): they are chosen through ns_last_pid", std::strerror(error));
      return LastPid::fork(pid, flags, exit_signal, who);
    }
    errno = error;
  }
  return static_cast<pid_t>(base::check(result, "make process", who));
}

}  // namespace criu::task
