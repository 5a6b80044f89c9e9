// SPDX-License-Identifier: LGPL-2.1-only
#pragma once

#include <functional>

#include "task.hpp"

struct compel_tree {
 public:
  // With `whole` the descendants too. Throws, and then everything goes on as it was. `let_go`: of tasks that something
  // else holds, so that they cannot stop yet.
  compel_tree(pid_t root, bool whole, unsigned timeout_seconds, const std::function<void()>& let_go);
  ~compel_tree();

  std::vector<std::unique_ptr<compel_task>>& tasks() { return tasks_; }
  compel_task* find(pid_t pid) const;
  void release(compel_final final_state);

 private:
  void add(pid_t pid, pid_t ppid);
  bool look_at(compel_task& task);
  void tell_all_held(bool whole);
  bool look_again(std::uint64_t deadline);
  void freeze_all(bool whole, std::uint64_t deadline);
  void wait_for_all(std::uint64_t deadline);
  void arrange(pid_t root, std::uint64_t deadline);

  std::vector<std::unique_ptr<compel_task>> tasks_;
  std::vector<compel::Thread*> unsettled_;  // told to stop, not yet seen to
  std::vector<pid_t> children_;
  std::unordered_map<pid_t, compel_task*> by_pid_;
};
