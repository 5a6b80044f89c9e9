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
#include <fstream>

#include "base/error.hpp"

namespace criu::task {

using base::Error;

void Sessions::require(const TaskImage& task, pid_t session) {
  // A task that leads its session could have been born into any; others are in the one they were born into.
  const auto [known, fresh] = born_in_.emplace(&task, session);
  if (!fresh && known->second != session) {
    throw Error("cannot restore", fmt::format("{}: it and its children need sessions {} and {} to be born into", task.name(), known->second, session), 0);
  }
  const auto* parent = task.parent;
  if (parent == nullptr) {
    return;
  }
  if (static_cast<pid_t>(parent->entry.sid()) == session) {
    return;
  }
  if (static_cast<pid_t>(parent->entry.sid()) != parent->pid()) {
    throw Error("cannot restore", fmt::format("{}: no ancestor was ever in its session {}", task.name(), session), 0);
  }
  early_.insert(&task);
  if (fresh) {
    require(*parent, session);
  }
}

Sessions::Sessions(const Checkpoint& checkpoint) {
  for (const auto& task : checkpoint.tasks) {
    if (static_cast<pid_t>(task->entry.sid()) != task->pid()) {
      require(*task, static_cast<pid_t>(task->entry.sid()));
    }
  }
}

std::multimap<const TaskImage*, pid_t> group_helpers(const Checkpoint& checkpoint) {
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
    if (present.insert(group).second) {
      helpers.emplace(maker, group);
    }
  }
  return helpers;
}

namespace {

std::string holder_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/comm", pid));
  std::string comm;
  std::getline(file, comm);
  return comm.empty() ? "a thread or process group" : "'" + comm + "'";
}

}  // namespace

pid_t fork_with_pid(pid_t pid, std::uint64_t flags, const std::string& who) {
  // What fork(2) of the C library does beyond the system call: it keeps the new thread's id for itself.
  int* own_tid = nullptr;
  ::prctl(PR_GET_TID_ADDRESS, &own_tid, 0, 0, 0);
  clone_args args{};
  args.flags = flags | (own_tid != nullptr ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0);
  args.child_tid = reinterpret_cast<std::uint64_t>(own_tid);
  args.exit_signal = (flags & CLONE_PARENT) != 0 ? 0 : SIGCHLD;
  args.set_tid = reinterpret_cast<std::uint64_t>(&pid);
  args.set_tid_size = 1;
  const auto result = ::syscall(SYS_clone3, &args, sizeof args);
  if (result < 0 && errno == EEXIST) {
    throw Error("pid is taken", fmt::format("{} needs pid {}, which {} has", who, pid, holder_of(pid)), EEXIST,
                "stop that one, or restore into a pid namespace of its own");
  }
  return static_cast<pid_t>(base::check(result, "make process", who));
}

}  // namespace criu::task
