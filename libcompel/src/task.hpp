// SPDX-License-Identifier: LGPL-2.1-only
// A process of a frozen tree, and what can be done to it from outside.
#pragma once

#include <base/fd.hpp>
#include <functional>
#include <memory>
#include <unordered_map>

#include "procfs.hpp"
#include "stubs.hpp"
#include "thread.hpp"

struct compel_parasite;

namespace compel {

// Lets go of threads that had not stopped when freezing was given up, as far as they have stopped by now.
void release_stragglers() noexcept;

}  // namespace compel

// The names of the C interface are the classes themselves: a handle needs no translation.
struct compel_task {
 public:
  compel_task(pid_t pid, pid_t ppid);
  ~compel_task();

  pid_t pid() const { return pid_; }
  pid_t ppid() const { return ppid_; }
  void set_ppid(pid_t ppid) { ppid_ = ppid; }
  compel_state state() const;
  int stop_signal() const;
  const std::vector<pid_t>& tids() const { return tids_; }

  // For the freezing.
  bool seize_new_threads(std::vector<compel::Thread*>& unsettled);  // true when there were some; they are appended
  void children(std::vector<pid_t>& out) const;
  void finish_freezing();  // drops the dead, fixes the order
  bool empty() const { return threads_.empty(); }
  std::vector<std::unique_ptr<compel::Thread>>& threads() { return threads_; }

  compel::Thread& thread(pid_t tid);  // 0: the leader
  int memory();                       // /proc/PID/mem
  compel::Stub place_stub(compel::Thread& thread, std::uint64_t unmap_base);

  std::int64_t run_syscall(compel::Thread& thread, long number, const std::uint64_t arguments[6]);
  template <typename... Arguments>
  std::int64_t run_syscall(compel::Thread& thread, long number, Arguments... arguments) {
    const std::uint64_t values[6] = {static_cast<std::uint64_t>(arguments)...};
    return run_syscall(thread, number, values);
  }
  struct Call {
    long number;
    std::uint64_t arguments[6];
  };
  // Calls that neither wait nor can be interrupted, in one visit: `make` is asked for each in turn, and told what the
  // one before has returned. The result of the last, or of the first that failed.
  std::int64_t run_quick(compel::Thread& thread, std::size_t count,
                         const std::function<Call(std::size_t index, std::int64_t before)>& make);
  int take_fd(int remote_fd);

  void release(compel_final final_state);
  void kill_threads() noexcept;  // sends the signal
  void help_dying() noexcept;    // takes a part in freeing much memory
  void reap() noexcept;          // and collects what it was sent to
  bool released() const { return released_; }

  compel_parasite* parasite = nullptr;  // owned by the caller; points back until it is unloaded

 private:
  pid_t pid_, ppid_;
  bool own_child_;
  bool released_ = false;
  std::vector<std::unique_ptr<compel::Thread>> threads_;
  std::unordered_map<pid_t, compel::Thread*> by_tid_;
  std::vector<pid_t> tids_;
  compel::procfs::TaskDirectory directory_;
  base::Fd memory_, pidfd_;
  compel::StubRoom stubs_;
};
