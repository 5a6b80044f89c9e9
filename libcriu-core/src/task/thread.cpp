// SPDX-License-Identifier: LGPL-2.1-only
#include <fmt/format.h>
#include <sched.h>

#include "base/error.hpp"
#include "task/objects.hpp"

namespace criu::task {

namespace {

void plan_scheduling(const images::thread_core_entry& core, const std::string& who, restorer::Thread& planned) {
  constexpr std::uint32_t reset_on_fork = 0x40000000;
  const auto policy = core.sched_policy() & ~reset_on_fork;
  const bool realtime = policy == SCHED_FIFO || policy == SCHED_RR;
  if (!realtime && policy != SCHED_OTHER && policy != SCHED_BATCH && policy != SCHED_IDLE) {
    throw base::Error("corrupt checkpoint", fmt::format("scheduling policy {} of {}", core.sched_policy(), who), 0);
  }
  planned.set_scheduler = 1;
  planned.policy = core.sched_policy();
  planned.priority = realtime ? core.sched_prio() : 0;
  planned.nice = core.sched_nice();
}

restorer::Thread plan_thread(const Checkpoint& checkpoint, const TaskImage& task, const images::core_entry& core,
                             std::uint32_t tid, restorer::Builder& builder) {
  const auto who = fmt::format("thread {} of {}", tid, task.name());
  const auto& thread = core.thread_core();
  restorer::Thread planned{};
  planned.tid = static_cast<std::int32_t>(tid);
  planned.robust_list = thread.futex_rla();
  planned.robust_list_size = thread.futex_rla_len();
  planned.clear_tid = core.thread_info().clear_tid_addr();
  planned.altstack = thread.sas().ss_sp();
  planned.altstack_size = thread.sas().ss_size();
  constexpr std::uint32_t disabled = 2;  // SS_DISABLE
  planned.altstack_flags = thread.has_sas() ? thread.sas().ss_flags() : disabled;
  if (thread.has_rseq_entry()) {
    planned.rseq = thread.rseq_entry().rseq_abi_pointer();
    planned.rseq_size = thread.rseq_entry().rseq_abi_size();
    planned.rseq_signature = thread.rseq_entry().signature();
  }
  if (thread.pdeath_sig() > 64) {
    throw base::Error("corrupt checkpoint", fmt::format("parent-death signal of {}", who), 0);
  }
  planned.pdeath_signal = thread.pdeath_sig();
  const auto& comm = thread.has_comm() ? thread.comm() : task.core.tc().comm();
  comm.copy(planned.comm, sizeof planned.comm - 1);
  plan_scheduling(thread, who, planned);
  plan_credentials(thread.creds(), builder, planned.credentials);
  plan_pending(thread.signals_p(), builder, planned.pending, planned.pending_count);
  plan_seccomp(checkpoint, thread, who, builder, planned);
  return planned;
}

}  // namespace

void plan_threads(const Checkpoint& checkpoint, const TaskImage& task, restorer::Builder& builder) {
  std::vector<restorer::Thread> threads;
  threads.push_back(plan_thread(checkpoint, task, task.core, task.entry.pid(), builder));
  for (std::size_t i = 0; i < task.threads.size(); ++i) {
    threads.push_back(plan_thread(checkpoint, task, task.threads[i], task.entry.threads(static_cast<int>(i) + 1), builder));
  }
  const auto ref = builder.add(threads);
  builder.plan().threads = ref;
  builder.plan().thread_count = static_cast<std::uint32_t>(threads.size());
}

}  // namespace criu::task
