// SPDX-License-Identifier: LGPL-2.1-only
// The master's side of the stages of a restore.
#pragma once

#include <pthread.h>

#include "restore_context.hpp"
#include "stats.hpp"
#include "task/rebirth.hpp"

namespace criu::task {

// Waits for the end of a child or tracee that has been sent SIGKILL, past any stop it had not told yet.
void reap(pid_t killed);

class Master {
 public:
  // Maps what is shared with the tasks, locks all gates, and works out where internal descriptors begin.
  Master(RestoreContext&, Family&);
  // Kills whatever was started, unless it was disowned.
  ~Master();
  Master(const Master&) = delete;
  Master& operator=(const Master&) = delete;

  // With `own_pids` the root is the first of a new pid namespace. Returns its pid as it is here.
  pid_t start(bool as_sibling, bool own_pids);
  // Waits until all have arrived at the stage. The failure of a task becomes an Error here.
  void wait(restorer::Stage stage) { await(stage, context_.shared->expected[static_cast<int>(stage)]); }
  // The same for a stage at which we are expected and have not arrived.
  void wait_for_others(restorer::Stage stage) { await(stage, context_.shared->expected[static_cast<int>(stage)] - 1); }
  void open(restorer::Stage);
  // The tasks wait there for us too, until we arrive. Before they are started.
  void expect_us(restorer::Stage stage) { ++context_.shared->expected[static_cast<int>(stage)]; }
  void arrive(restorer::Stage stage) { restorer::arrive(context_.shared, stage); }
  // What the tasks counted.
  void count(images::restore_stats_entry&) const;
  // The tree lives on its own from here.
  void disown() { started_ = false; }

 private:
  pthread_mutex_t* gate(restorer::Stage stage) const {
    return reinterpret_cast<pthread_mutex_t*>(&context_.shared->gates[static_cast<int>(stage)]);
  }
  void await(restorer::Stage, std::uint32_t arrived);
  void choose_internal_fds();
  void check_failure() const;
  void look_for_dead() const;

  RestoreContext& context_;
  Family& family_;
  bool started_ = false;
  bool own_pids_ = false;
  pid_t root_ = 0;
};

}  // namespace criu::task
