// SPDX-License-Identifier: LGPL-2.1-only
// Freezing: all are told to stop before anybody is waited for, and the tree is looked through again until a look, made
// when all known threads stood still, finds nobody new.
#include "freeze.hpp"

#include <sched.h>
#include <time.h>

#include <algorithm>

#include "parasite.hpp"

using compel::Thread;
namespace procfs = compel::procfs;

namespace {

std::uint64_t now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(time.tv_nsec);
}

}  // namespace

compel_tree::compel_tree(pid_t root, bool whole, unsigned timeout_seconds, const std::function<void()>& let_go) {
  const std::uint64_t deadline = now() + timeout_seconds * std::uint64_t{1'000'000'000};
  const auto about = procfs::stat(root);
  if (root <= 0 || !about) {
    throw base::Error("seize", "task " + std::to_string(root), ESRCH);
  }
  add(root, about->ppid);
  try {
    if (let_go) {
      tell_all_held(whole);
      let_go();
      wait_for_all(deadline);
    }
    freeze_all(whole, deadline);
  } catch (...) {
    // Who was told to stop has to stop before it can be let go.
    try {
      wait_for_all(now() + 200'000'000);
    } catch (...) {
      // The first failure is the one to tell; compel::release_stragglers looks after the rest.
    }
    throw;
  }
  arrange(root, deadline);
  if (tasks_.empty()) {
    throw base::Error("seize", "task " + std::to_string(root), ESRCH, "it vanished meanwhile");
  }
}

compel_tree::~compel_tree() {
  try {
    release(COMPEL_RESUME);
  } catch (...) {
    // A destructor has nobody to tell.
  }
}

void compel_tree::add(pid_t pid, pid_t ppid) {
  auto& slot = by_pid_[pid];
  if (slot == nullptr) {
    tasks_.push_back(std::make_unique<compel_task>(pid, ppid));
    slot = tasks_.back().get();
  }
}

// One look at `task`. True when somebody new was found, who is told to stop.
bool compel_tree::look_at(compel_task& task) {
  if (task.seize_new_threads(unsettled_)) {
    return true;
  }
  // All its threads have stopped, so its children are all that it will have, but for orphans it may inherit.
  children_.clear();
  task.children(children_);
  bool grew = false;
  for (const pid_t child : children_) {
    if (by_pid_.count(child) == 0) {
      add(child, task.pid());
      grew = true;
    }
  }
  return grew;
}

// Nobody moves, so one look finds all; nor can they stop, so nobody is waited for.
void compel_tree::tell_all_held(bool whole) {
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    auto& task = *tasks_[i];
    task.seize_new_threads(unsettled_);
    children_.clear();
    if (whole) {
      task.children(children_);
    }
    for (const pid_t child : children_) {
      add(child, task.pid());
    }
  }
}

void compel_tree::freeze_all(bool whole, std::uint64_t deadline) {
  if (!whole) {
    while (tasks_.front()->seize_new_threads(unsettled_)) {
      wait_for_all(deadline);
    }
    return;
  }
  std::size_t first = 0;  // before it all have been looked at standing still
  do {
    std::vector<compel_task*> open;
    for (; first < tasks_.size() || !open.empty();) {
      for (; first < tasks_.size(); ++first) {
        open.push_back(tasks_[first].get());
      }
      std::vector<compel_task*> again;
      for (compel_task* task : open) {
        const std::size_t waiting = unsettled_.size();
        look_at(*task);
        if (unsettled_.size() != waiting) {
          again.push_back(task);
        }
      }
      open = std::move(again);
      wait_for_all(deadline);
    }
    // Somebody who still ran may have left an orphan to one that had been looked at. A process without children has
    // nobody to inherit from.
    if (tasks_.size() == 1) {
      return;
    }
  } while (look_again(deadline));
}

bool compel_tree::look_again(std::uint64_t deadline) {
  bool grew = false;
  for (std::size_t i = 0, known = tasks_.size(); i < known; ++i) {
    grew = look_at(*tasks_[i]) || grew;
  }
  wait_for_all(deadline);
  return grew;
}

void compel_tree::wait_for_all(std::uint64_t deadline) {
  // The kernel has no wait with a timeout for a ptrace stop, short of taking over SIGCHLD of the program we are part
  // of. Nearly every thread stops while the others are still being told to; for the rest it is asked ever less often.
  constexpr unsigned polite_rounds = 32;
  constexpr long longest_pause = 2'000'000;
  long pause = 20'000;
  const auto drop_settled = [this] {
    unsettled_.erase(
        std::remove_if(unsettled_.begin(), unsettled_.end(), [](Thread* thread) { return thread->settle(); }),
        unsettled_.end());
  };
  drop_settled();
  for (unsigned round = 0; !unsettled_.empty(); ++round) {
    if (now() > deadline) {
      const std::string who = unsettled_.front()->describe();
      const auto about = procfs::stat(unsettled_.front()->tid());
      unsettled_.clear();
      throw base::Error("freeze", who, ETIMEDOUT,
                        about && about->state == 'D'
                            ? "it waits uninterruptibly in the kernel (state D: vfork, or a device or file server)"
                            : "it does not stop");
    }
    if (round < polite_rounds) {
      ::sched_yield();
    } else {
      const timespec time{0, pause};
      ::nanosleep(&time, nullptr);
      pause = std::min(pause * 2, longest_pause);
    }
    drop_settled();
  }
}

// Drops who vanished or left, and puts parents before children.
void compel_tree::arrange(pid_t root, std::uint64_t deadline) {
  std::unordered_map<pid_t, std::vector<std::unique_ptr<compel_task>>> by_parent;
  std::unique_ptr<compel_task> first;
  for (auto& task : tasks_) {
    task->finish_freezing();
    auto about = procfs::stat(task->pid());
    // Who ends just now is a zombie soon, or gone.
    while (task->empty() && about && !about->dead() && now() < deadline) {
      ::sched_yield();
      about = procfs::stat(task->pid());
    }
    if (!about || (task->empty() && !about->dead())) {
      by_pid_.erase(task->pid());
      continue;
    }
    task->set_ppid(about->ppid);
    if (task->pid() == root) {
      first = std::move(task);
    } else {
      by_parent[about->ppid].push_back(std::move(task));
    }
  }
  tasks_.clear();
  // Depth first, without recursion: a chain of children may be as long as the pid space.
  std::vector<std::unique_ptr<compel_task>> stack;
  if (first) {
    stack.push_back(std::move(first));
  }
  while (!stack.empty()) {
    tasks_.push_back(std::move(stack.back()));
    stack.pop_back();
    const auto children = by_parent.find(tasks_.back()->pid());
    if (children == by_parent.end()) {
      continue;
    }
    for (auto child = children->second.rbegin(); child != children->second.rend(); ++child) {
      stack.push_back(std::move(*child));
    }
    by_parent.erase(children);
  }
  // Whoever is left belongs to somebody outside by now, because its parent died: its destructor lets it go.
  for (const auto& [parent, orphans] : by_parent) {
    for (const auto& orphan : orphans) {
      by_pid_.erase(orphan->pid());
    }
  }
}

compel_task* compel_tree::find(pid_t pid) const {
  const auto found = by_pid_.find(pid);
  return found == by_pid_.end() ? nullptr : found->second;
}

void compel_tree::release(compel_final final_state) {
  std::exception_ptr failure;
  if (final_state == COMPEL_KILL) {
    for (const auto& task : tasks_) {
      task->kill_threads();
    }
    for (const auto& task : tasks_) {
      task->help_dying();
    }
  }
  // Children first: the init of a pid namespace dies only after everybody in it has been reaped, and a parent should
  // not see a child that is not yet as it was.
  for (auto task = tasks_.rbegin(); task != tasks_.rend(); ++task) {
    try {
      final_state == COMPEL_KILL ? (*task)->reap() : (*task)->release(final_state);
    } catch (...) {
      if (!failure) {
        failure = std::current_exception();
      }
    }
  }
  if (failure) {
    std::rethrow_exception(failure);
  }
}
