// SPDX-License-Identifier: LGPL-2.1-only
// The frozen tree of a dump, over libcompel.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <memory>
#include <vector>

#include "options.hpp"
#include "parasite/protocol.hpp"
#include "task/checkpoint.hpp"

namespace criu::namespaces {
class Freezer;
}

namespace criu::task {

// A thread's restartable sequences area.
struct ThreadRseq {
  std::uint64_t pointer = 0;  // 0: none
  std::uint32_t size = 0, signature = 0;
  bool inside = false;         // it was stopped inside a critical section,
  std::uint64_t abort_ip = 0;  // and is to go on here: being dumped is a disturbance like any other
};

struct FrozenTask {
  pid_t pid = 0;
  pid_t ppid = 0;  // 0: the root
  TaskState state = TaskState::alive;
  int stop_signal = 0;      // of a stopped task
  std::vector<pid_t> tids;  // the leader first
};

class FrozenTree {
 public:
  // Stops every thread of the tree. On destruction without release everything goes on as it was.
  FrozenTree(pid_t root, unsigned timeout_seconds, namespaces::Freezer&);
  ~FrozenTree();
  FrozenTree(const FrozenTree&) = delete;
  FrozenTree& operator=(const FrozenTree&) = delete;

  // Parents before their children.
  const std::vector<FrozenTask>& tasks() const;
  // Registers as they were at the freeze.
  user_regs_struct registers(std::size_t task, pid_t tid) const;
  ThreadRseq rseq(std::size_t task, pid_t tid) const;
  // Blocked signals as at the freeze, also of a thread that waits in sigsuspend.
  std::uint64_t signal_mask(std::size_t task, pid_t tid) const;
  // What only the task itself can be asked. `timer_ids` are those of its POSIX timers. One ThreadInfo a tid. Returns
  // the flags of an mlockall for what it maps from now on; `locked` is its VmLck.
  int query(std::size_t task, const std::vector<int>& timer_ids, std::uint64_t locked, parasite::ProcessInfo& process,
            std::vector<parasite::Timer>& timers, std::vector<parasite::ThreadInfo>& threads);
  // What the end of the task would add to each of `count` semaphores of a set; at most `at_once` operations a call.
  // An errno of the task, EACCES for one, is an Error.
  std::vector<std::int16_t> query_undo(std::size_t task, int set, std::uint32_t count, std::uint32_t at_once);
  // What only the threads of a task can be asked about one of its io_urings; those in `tids`, in this order.
  std::vector<parasite::RingQuery> query_ring(std::size_t task, const std::vector<pid_t>& tids,
                                              const parasite::RingQuery& question);
  // Cancels what is in flight of an io_uring of the task, and has it let go of its files.
  void quiet_ring(std::size_t task, int fd);
  // A system call in its first thread; what the kernel returned.
  std::int64_t syscall(std::size_t task, long number, std::uint64_t first, std::uint64_t second = 0,
                       std::uint64_t third = 0);
  // The end: the tasks are killed, stopped, or go on.
  void release(FinalState state);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace criu::task
