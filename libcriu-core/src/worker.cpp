// SPDX-License-Identifier: LGPL-2.1-only
#include "worker.hpp"

#include <signal.h>

#include <algorithm>

namespace criu {

namespace {

constexpr std::size_t most_weight = 64 << 20;
constexpr std::size_t worth_a_thread = 4 << 20;  // some two milliseconds of copying

}  // namespace

std::thread start_thread(std::function<void()> work) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread thread(std::move(work));
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return thread;
  } catch (...) {
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
}

void Worker::abandon() noexcept {
  abandoned_ = true;
  {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Worker::post(Job job, std::size_t weight) {
  std::unique_lock lock(mutex_);
  weight = std::min(weight, most_weight / 2);  // the largest job lets others wait in line
  if (thread_.joinable() && std::this_thread::get_id() != runner_) {
    changed_.wait(lock, [&] { return weight_ + weight <= most_weight || weight_ == 0 || failure_; });
  }
  jobs_.push_back({std::move(job), weight});
  weight_ += weight;
  if (!thread_.joinable() && weight_ >= worth_a_thread) {
    thread_ = start_thread([this] { work(); });
  }
  changed_.notify_all();
}

void Worker::wait() {
  std::unique_lock lock(mutex_);
  while (!thread_.joinable() && !jobs_.empty()) {
    run_next(lock);  // which may post more, and start the thread
  }
  changed_.wait(lock, [this] { return jobs_.empty() && !busy_; });
  if (failure_) {
    std::rethrow_exception(failure_);
  }
}

bool Worker::running() {
  const std::lock_guard lock(mutex_);
  return thread_.joinable();
}

void Worker::run_next(std::unique_lock<std::mutex>& lock) {
  auto entry = std::move(jobs_.front());
  jobs_.pop_front();
  if (!failure_) {
    busy_ = true;
    runner_ = std::this_thread::get_id();
    lock.unlock();
    std::exception_ptr failure;
    try {
      entry.job();
    } catch (...) {
      failure = std::current_exception();
    }
    entry.job = nullptr;  // frees what it held
    lock.lock();
    busy_ = false;
    runner_ = {};
    failure_ = failure;
  }
  weight_ -= entry.weight;
  changed_.notify_all();
}

void Worker::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return (!jobs_.empty() && !busy_) || abandoned_; });
    if (abandoned_) {
      return;
    }
    run_next(lock);
  }
}

}  // namespace criu
