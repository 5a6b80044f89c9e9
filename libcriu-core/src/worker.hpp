// SPDX-License-Identifier: LGPL-2.1-only
// A second thread for those parts of a dump that need no ptrace: jobs done one after the other, in the order given.
// There is no thread before there is enough to do: to wake one takes as long as some of what a small dump consists of.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace criu {

// A thread that takes no signals: those are for the threads of whoever called the library.
std::thread start_thread(std::function<void()> work);

class Worker {
 public:
  using Job = std::function<void()>;

  Worker() = default;
  ~Worker() { abandon(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // `weight`: the bytes that the job moves, or holds in memory until it is done. Waits while there is too much to do.
  void post(Job job, std::size_t weight);
  // Until all is done, if there is no thread by the caller itself. Throws the first failure, after which further jobs
  // were dropped.
  void wait();
  // Whether there is a thread.
  bool running();
  // Drops what has not begun, and waits for what has: a long job asks `abandoned` between its pieces.
  void abandon() noexcept;
  bool abandoned() const { return abandoned_; }

  // Where a scope ends, so that no job outlives what it uses.
  class Scope {
   public:
    explicit Scope(Worker& worker) : worker_(worker) {}
    ~Scope() { worker_.abandon(); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Worker& worker_;
  };

 private:
  struct Entry {
    Job job;
    std::size_t weight;
  };
  void work();
  void run_next(std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> jobs_;
  std::size_t weight_ = 0;  // of all that is not done
  bool busy_ = false;
  std::thread::id runner_;  // of the job under way: what that posts must not wait for it
  std::atomic<bool> abandoned_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

}  // namespace criu
