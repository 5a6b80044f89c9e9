// SPDX-License-Identifier: LGPL-2.1-only
// A blob inside a task.
//
// In the task, in one stretch:   stubs of threads | blob code   || blob data | control | slots | stacks | xsave |
// shared area
//                                      r-x, one object          ||                 rw-, another object
// The master maps the same two objects by opening them through /proc/PID/map_files, so the task spends no descriptor.
#pragma once

#include <compel/blob.h>
#include <compel/runtime_abi.h>
#include <pthread.h>

#include <base/fd.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "task.hpp"

struct compel_parasite {
 public:
  compel_parasite(compel_task& task, const compel_blob& blob, std::size_t data_size);
  ~compel_parasite();

  void* data() const { return shared_; }
  std::size_t data_size() const { return data_size_; }
  std::uint64_t data_address() const { return remote(shared_); }
  std::uint64_t symbol(const std::string& name) const;
  bool inside(const compel::Thread& thread) const { return resident_ && thread.tid() == task_->pid(); }
  compel_task* task() const { return task_; }

  long call(const char* entry, std::size_t argument);
  void call_threads(const pid_t* tids, std::size_t count, const char* entry, std::size_t argument, std::size_t stride,
                    long* results);
  void start();
  void stop();
  void post(const char* entry, std::size_t argument);
  long wait();
  int give_fd(int fd);
  std::size_t log(char* buffer, std::size_t size);

  // Out of the task. The object lives on as an empty shell until its owner lets it go.
  void unload();
  // The same when there is no task any more.
  void abandon() noexcept;

 private:
  struct Run {
    compel::Thread* thread = nullptr;
    std::size_t slot = 0;
    std::uint64_t stub = 0;
    bool entered = false;
  };

  void lay_out(const compel_blob& blob);
  void map_into_task();
  void unmap_from_task();
  base::Mapping map_here(std::uint64_t address, std::size_t size);
  void place(const compel_blob& blob);

  void require_task() const;
  std::uint64_t remote(const void* here) const;
  std::uint64_t argument_address(std::size_t offset) const;
  compel_slot& slot(std::size_t index) const;
  std::uint64_t stack_end(std::size_t index) const;
  std::uint64_t xsave_of(std::size_t index) const;
  std::uint32_t* life_word() const;

  void lock_life();
  void unlock_life() noexcept;
  void enter(Run& run);
  void await_answer(compel::Thread& thread, compel_slot& at);
  void leave_after_crash(Run& run);
  void post_raw(std::uint64_t entry, std::uint64_t argument);
  long command(std::uint64_t entry, std::uint64_t argument);
  void run_batch(const pid_t* tids, std::size_t count, std::uint64_t entry, std::uint64_t argument, std::size_t stride,
                 long* results);
  void finish_batch(std::vector<Run>& runs, long* results);

  compel_task* task_;
  std::vector<std::pair<std::string, std::uint64_t>> symbols_;
  bool vectors_ = false;
  std::size_t data_size_, threads_ = 0, stub_step_ = 0, xsave_step_ = 0;
  std::size_t exec_size_ = 0, stubs_size_ = 0, total_ = 0;
  std::size_t control_at_ = 0, slots_at_ = 0, stacks_at_ = 0, xsaves_at_ = 0, shared_at_ = 0;  // in the rw- part
  std::uint64_t base_ = 0;  // of the stretch in the task
  base::Mapping exec_, memory_;
  compel_control* control_ = nullptr;
  char* shared_ = nullptr;
  bool mutex_made_ = false, life_held_ = false, resident_ = false, outstanding_ = false;
  compel::Stub stub_;
  std::uint32_t log_seen_ = 0;
};
