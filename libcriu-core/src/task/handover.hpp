// SPDX-License-Identifier: LGPL-2.1-only
// The end of a restore: the master takes every thread out of the restorer and lets all go on at once.
#pragma once

#include <set>

#include "restorer/become.hpp"
#include "task/checkpoint.hpp"

namespace criu::task {

class Handover {
 public:
  Handover(const Checkpoint& checkpoint, const restorer::Region* regions)
      : checkpoint_(checkpoint), regions_(regions) {}
  // Unless they have been released: ends all who were attached to, and reaps them but for the root's leader.
  ~Handover();
  Handover(const Handover&) = delete;
  Handover& operator=(const Handover&) = delete;
  // Attaches to every thread, while they wait for the last stage: seccomp filters must not bite before the end. From
  // here on the death of the master kills them.
  void attach();
  // Stops every thread, at the last gate.
  void stop();
  // Unmaps the restorer and puts the registers in.
  void put_registers();
  // Lets go.
  void release(bool leave_stopped);

 private:
  void reap_attached(bool leaders) const;
  void commit();
  void put_to_sleep(pid_t tid);
  void stop_again(const TaskImage& task, int signo) const;
  void unmap_restorer(pid_t leader, const restorer::Region& region);

  const Checkpoint& checkpoint_;
  std::set<pid_t> attached_;
  std::set<pid_t> asleep_;  // threads that were stopped in the rest of an interrupted sleep
  const restorer::Region* regions_;
  long options_ = 0;  // of ptrace
};

}  // namespace criu::task
