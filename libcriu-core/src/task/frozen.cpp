// SPDX-License-Identifier: LGPL-2.1-only
#include "task/frozen.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <compel/compel.hpp>

#include "base/error.hpp"
#include "core/registers.hpp"
#include "kernel/procfs.hpp"
#include "memory/areas.hpp"
#include "namespaces/freezer.hpp"
#include "parasite_blob.h"

namespace criu::task {

namespace {

// libcompel has an error type of its own; inside this library there is one.
template <typename Call>
auto translated(Call call) {
  try {
    return call();
  } catch (const compel::Error& error) {
    throw base::Error(error.operation(), error.object(), error.code(), error.hint());
  }
}

TaskState state_of(compel::State state) {
  switch (state) {
    case compel::State::stopped:
      return TaskState::stopped;
    case compel::State::zombie:
      return TaskState::dead;
    default:
      return TaskState::alive;
  }
}

}  // namespace

namespace {

// Nobody tells whether what a task maps is to be locked; but something has just been mapped in it.
int future_locks(pid_t pid, std::uint64_t locked_before, std::uint64_t mapped) {
  const procfs::Task proc(pid);
  if (procfs::parse_status(proc.read("status")).locked == locked_before) {
    return 0;
  }
  for (const auto& area : procfs::parse_smaps(proc.read("smaps"))) {
    if (area.start <= mapped && mapped < area.end) {
      return memory::is_locked_on_fault(area) ? MCL_FUTURE | MCL_ONFAULT : MCL_FUTURE;
    }
  }
  return 0;
}

}  // namespace

struct FrozenTree::Impl {
  compel::Tree tree;
  std::vector<FrozenTask> tasks;
};

FrozenTree::FrozenTree(pid_t root, unsigned timeout_seconds, namespaces::Freezer& freezer)
    : impl_(std::make_unique<Impl>()) {
  compel::Options options{timeout_seconds};
  if (freezer.any()) {
    freezer.freeze(timeout_seconds);
    options.held = [&freezer] { return freezer.let_go(); };
  }
  translated([&] {
    impl_->tree = compel::Tree::freeze(root, options);
    for (const auto& task : impl_->tree.tasks()) {
      impl_->tasks.push_back(
          {task.pid(), task.pid() == root ? 0 : task.ppid(), state_of(task.state()), task.stop_signal(), task.tids()});
    }
  });
}

FrozenTree::~FrozenTree() = default;

const std::vector<FrozenTask>& FrozenTree::tasks() const { return impl_->tasks; }

user_regs_struct FrozenTree::registers(std::size_t task, pid_t tid) const {
  return translated([&] { return impl_->tree.task(task).registers(tid); });
}

ThreadRseq FrozenTree::rseq(std::size_t task, pid_t tid) const {
  try {
    const auto rseq = impl_->tree.task(task).rseq(tid);
    return {rseq.pointer, rseq.size, rseq.signature, rseq.inside != 0, rseq.abort_ip};
  } catch (const compel::Error& error) {
    if (error.code() == EOPNOTSUPP) {
      return {};  // a kernel that does not tell
    }
    throw base::Error(error.operation(), error.object(), error.code(), error.hint());
  }
}

std::uint64_t FrozenTree::signal_mask(std::size_t task, pid_t tid) const {
  return translated([&] { return impl_->tree.task(task).signal_mask(tid); });
}

int FrozenTree::query(std::size_t index, const std::vector<int>& timer_ids, std::uint64_t locked,
                      parasite::ProcessInfo& process, std::vector<parasite::Timer>& timers,
                      std::vector<parasite::ThreadInfo>& threads) {
  return translated([&] {
    auto task = impl_->tree.task(index);
    const auto tids = task.tids();
    const auto threads_at = (sizeof(parasite::ProcessInfo) + 63) / 64 * 64;
    auto intruder = task.load(parasite_blob, threads_at + tids.size() * sizeof(parasite::ThreadInfo));
    const auto future = future_locks(task.pid(), locked, intruder.data_address());
    auto& answer = intruder.data_as<parasite::ProcessInfo>();
    std::size_t asked = 0;
    do {
      answer.protection_keys = arch::has_protection_keys() ? 1 : 0;
      answer.leader_at = asked == 0 ? static_cast<std::uint32_t>(threads_at) : 0;
      answer.timer_count =
          static_cast<std::uint32_t>(std::min<std::size_t>(timer_ids.size() - asked, parasite::most_timers));
      for (std::uint32_t i = 0; i < answer.timer_count; ++i) {
        answer.timers[i].id = timer_ids[asked + i];
      }
      if (intruder.call("query_process") != 0) {
        throw base::Error("ask", fmt::format("task {}", task.pid()), -answer.error);
      }
      timers.insert(timers.end(), answer.timers, answer.timers + answer.timer_count);
      asked += answer.timer_count;
    } while (asked < timer_ids.size());
    process = answer;
    const std::vector<pid_t> others(tids.begin() + 1, tids.end());
    intruder.call_in_threads(others, "query_thread", threads_at + sizeof(parasite::ThreadInfo),
                             sizeof(parasite::ThreadInfo));
    const auto* answers = &intruder.data_as<parasite::ThreadInfo>(threads_at);
    threads.assign(answers, answers + tids.size());
    intruder.unload();
    return future;
  });
}

std::vector<std::int16_t> FrozenTree::query_undo(std::size_t index, int set, std::uint32_t count,
                                                 std::uint32_t at_once) {
  return translated([&] {
    auto task = impl_->tree.task(index);
    auto intruder = task.load(parasite_blob, sizeof(parasite::UndoQuery));
    auto& query = intruder.data_as<parasite::UndoQuery>();
    std::vector<std::int16_t> adjustments;
    while (adjustments.size() < count) {
      query.set = set;
      query.first = static_cast<std::uint32_t>(adjustments.size());
      query.count = std::min(count - query.first, parasite::most_semaphores);
      query.operations_at_once = std::min(at_once, parasite::most_operations);
      if (intruder.call("query_undo") != 0) {
        throw base::Error("ask", fmt::format("task {} about semaphore set {}", task.pid(), set), -query.error);
      }
      adjustments.insert(adjustments.end(), query.adjustments, query.adjustments + query.count);
    }
    intruder.unload();
    return adjustments;
  });
}

std::vector<parasite::RingQuery> FrozenTree::query_ring(std::size_t index, const std::vector<pid_t>& tids,
                                                        const parasite::RingQuery& question) {
  return translated([&] {
    auto task = impl_->tree.task(index);
    auto intruder = task.load(parasite_blob, tids.size() * sizeof question);
    auto* queries = &intruder.data_as<parasite::RingQuery>();
    std::fill(queries, queries + tids.size(), question);
    intruder.call_in_threads(tids, "query_ring", 0, sizeof question);
    std::vector<parasite::RingQuery> answers(queries, queries + tids.size());
    intruder.unload();
    return answers;
  });
}

void FrozenTree::quiet_ring(std::size_t index, int fd) {
  translated([&] {
    auto task = impl_->tree.task(index);
    const auto tids = task.tids();
    auto intruder = task.load(parasite_blob, tids.size() * sizeof(std::int32_t));
    auto* descriptors = &intruder.data_as<std::int32_t>();
    std::fill(descriptors, descriptors + tids.size(), fd);
    intruder.call_in_threads(tids, "quiet_ring", 0, sizeof(std::int32_t));
    intruder.unload();
  });
}

std::int64_t FrozenTree::syscall(std::size_t index, long number, std::uint64_t first, std::uint64_t second,
                                 std::uint64_t third) {
  return translated([&] { return impl_->tree.task(index).syscall(number, first, second, third, 0, 0); });
}

void FrozenTree::release(FinalState state) {
  translated([&] {
    impl_->tree.release(state == FinalState::killed    ? compel::Final::kill
                        : state == FinalState::stopped ? compel::Final::stop
                                                       : compel::Final::resume);
  });
}

}  // namespace criu::task
