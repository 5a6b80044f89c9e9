// SPDX-License-Identifier: LGPL-2.1-only
#include <fmt/format.h>
#include <linux/rseq.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <span>

#include "arch/tiles.hpp"
#include "base/error.hpp"
#include "log.hpp"
#include "restore_context.hpp"
#include "task/ids.hpp"
#include "task/objects.hpp"

namespace criu::task {

namespace {

void plan_scheduling(const images::thread_core_entry& core, const std::string& who, restorer::Thread& planned) {
  const auto policy = core.sched_policy() & ~static_cast<std::uint32_t>(SCHED_RESET_ON_FORK);
  const bool realtime = policy == SCHED_FIFO || policy == SCHED_RR;
  if (!is_known_policy(static_cast<int>(core.sched_policy()))) {
    throw base::Error("corrupt checkpoint", fmt::format("scheduling policy {} of {}", core.sched_policy(), who), 0);
  }
  planned.set_scheduler = 1;
  planned.policy = core.sched_policy();
  planned.priority = realtime ? core.sched_prio() : 0;
  planned.nice = core.sched_nice();
}

restorer::Thread plan_thread(const RestoreContext& context, const TaskImage& task, const images::core_entry& core,
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
  planned.timer_slack = thread.extension().timer_slack();
  planned.io_priority = thread.extension().io_priority();
  if (context.options.affinity) {
    const auto& mask = thread.extension().affinity();
    if (mask.empty()) {
      LOG_WARN("--affinity: the checkpoint does not tell the processors of {}", who);
    }
    planned.affinity = {builder.add(std::span<const char>(mask.data(), mask.size())).offset};
    planned.affinity_size = static_cast<std::uint32_t>(mask.size());
  }
  planned.set_io_priority = thread.extension().has_io_priority() ? 1 : 0;
  if (thread.extension().has_sleep()) {
    const auto& sleep = thread.extension().sleep();
    planned.sleeps = 1;
    planned.sleep_clock = static_cast<std::int32_t>(sleep.clock());
    planned.sleep_sec = static_cast<std::int64_t>(sleep.left_sec());
    planned.sleep_nsec = static_cast<std::int64_t>(sleep.left_nsec());
    planned.sleep_remainder = sleep.remainder();
  }
  for (const auto& component : thread.extension().xstate()) {
    planned.uses_tiles |= component.number() == arch::tile_data_component ? 1 : 0;
  }
  planned.pdeath_signal = thread.pdeath_sig();
  const auto& comm = thread.has_comm() ? thread.comm() : task.core.tc().comm();
  comm.copy(planned.comm, sizeof planned.comm - 1);
  plan_scheduling(thread, who, planned);
  if (context.users->own()) {  // schedule_threads does it
    planned.set_scheduler = planned.set_io_priority = 0;
  }
  plan_credentials(context, thread.creds(), builder, planned.credentials);
  plan_pending(thread.signals_p(), builder, planned.pending, planned.pending_count);
  return planned;
}

}  // namespace

namespace {

void save_robust_list(pid_t tid, images::thread_core_entry& core) {
  std::uint64_t head = 0;
  std::size_t size = 0;
  base::check(::syscall(SYS_get_robust_list, tid, &head, &size), "read the robust list of",
              fmt::format("thread {}", tid));
  core.set_futex_rla(head);
  core.set_futex_rla_len(static_cast<std::uint32_t>(size));
}

void save_rseq(const ThreadRseq& rseq, images::thread_core_entry& core) {
  if (rseq.pointer != 0) {
    auto& entry = *core.mutable_rseq_entry();
    entry.set_rseq_abi_pointer(rseq.pointer);
    entry.set_rseq_abi_size(rseq.size);
    entry.set_signature(rseq.signature);
  }
}

void save_scheduling(pid_t tid, const parasite::ThreadInfo& info, images::thread_core_entry& core) {
  const auto policy = info.policy & ~SCHED_RESET_ON_FORK;
  const bool realtime = policy == SCHED_FIFO || policy == SCHED_RR;
  if (!is_known_policy(info.policy)) {
    throw unknown_policy(tid, info.policy);
  }
  core.set_sched_policy(static_cast<std::uint32_t>(info.policy));
  core.set_sched_nice(info.nice);
  if (realtime) {
    core.set_sched_prio(static_cast<std::uint32_t>(info.priority));
  }
}

// For a restore that asks for it.
void save_affinity(pid_t tid, images::thread_core_entry& core) {
  constexpr std::size_t most = 1024;  // 8192 processors, the most that x86-64 kernels are built for
  char mask[most];
  const auto size = base::check(::syscall(SYS_sched_getaffinity, tid, sizeof mask, mask), "read the affinity of",
                                fmt::format("thread {}", tid));
  core.mutable_extension()->set_affinity(mask, static_cast<std::size_t>(size));
}

// What the format has no field for, where it is not as in a fresh thread.
void save_extension(const parasite::ThreadInfo& info, images::thread_core_entry& core) {
  constexpr std::uint64_t usual_slack = 50000;
  if (info.timer_slack != usual_slack && info.timer_slack != 0) {
    core.mutable_extension()->set_timer_slack(info.timer_slack);
  }
  if (info.io_priority > 0) {
    core.mutable_extension()->set_io_priority(static_cast<std::uint32_t>(info.io_priority));
  }
}

}  // namespace

void save_thread(pid_t tid, const parasite::ThreadInfo& info, const ThreadRseq& rseq, images::thread_core_entry& core) {
  save_robust_list(tid, core);
  save_scheduling(tid, info, core);
  auto& sas = *core.mutable_sas();
  sas.set_ss_sp(info.altstack);
  sas.set_ss_size(info.altstack_size);
  sas.set_ss_flags(static_cast<std::uint32_t>(info.altstack_flags));
  if (info.pdeath_signal != 0) {
    core.set_pdeath_sig(static_cast<std::uint32_t>(info.pdeath_signal));
  }
  *core.mutable_signals_p() = save_pending(tid, false);
  core.set_comm(info.comm, ::strnlen(info.comm, sizeof info.comm));
  save_rseq(rseq, core);
  save_extension(info, core);
  save_affinity(tid, core);
}

void plan_threads(const RestoreContext& context, const TaskImage& task, restorer::Builder& builder) {
  std::vector<restorer::Thread> threads;
  threads.push_back(plan_thread(context, task, task.core, task.entry.pid(), builder));
  for (int i = 0; i < task.threads.size(); ++i) {
    threads.push_back(plan_thread(context, task, task.threads[i], task.entry.threads(i + 1), builder));
  }
  plan_seccomp(context.checkpoint, task, builder, threads);
  const auto ref = builder.add(threads);
  builder.plan().threads = ref;
  builder.plan().thread_count = static_cast<std::uint32_t>(threads.size());
}

void schedule_threads(const RestoreContext& context) {
  const auto schedule = [](const TaskImage& task, const images::core_entry& core, std::uint32_t tid) {
    const auto who = fmt::format("thread {} of {}", tid, task.name());
    const auto& thread = core.thread_core();
    restorer::Thread wanted{};
    plan_scheduling(thread, who, wanted);
    const sched_param priority{static_cast<int>(wanted.priority)};
    base::check(::sched_setscheduler(static_cast<pid_t>(tid), static_cast<int>(wanted.policy), &priority),
                "set the scheduling policy of", who);
    base::check(::setpriority(PRIO_PROCESS, tid, wanted.nice), "set the nice value of", who);
    constexpr int of_process = 1;  // IOPRIO_WHO_PROCESS
    if (thread.extension().has_io_priority()) {
      base::check(::syscall(SYS_ioprio_set, of_process, tid, thread.extension().io_priority()),
                  "set the I/O priority of", who);
    }
  };
  for (const auto& task : context.checkpoint.tasks) {
    if (task->alive() && context.users->own()) {
      schedule(*task, task->core, task->entry.pid());
      for (int i = 0; i < task->threads.size(); ++i) {
        schedule(*task, task->threads[i], task->entry.threads(i + 1));
      }
    }
  }
}

}  // namespace criu::task
