// SPDX-License-Identifier: LGPL-2.1-only
#include <fmt/format.h>

#include "base/error.hpp"
#include "task/objects.hpp"

// Behind the messages: one of their fields has the name of a macro of signal.h.
#include <signal.h>
#include <sys/ptrace.h>

namespace criu::task {

namespace {

constexpr int sigkill = 9, sigstop = 19, last_signal = 64;

}  // namespace

void save_signals(pid_t pid, const parasite::ProcessInfo& info, images::task_core_entry& core) {
  for (int signo = 1; signo <= last_signal; ++signo) {
    if (signo == sigkill || signo == sigstop) {
      continue;
    }
    const auto& action = info.actions[signo - 1];
    auto& entry = *core.add_sigactions();
    entry.set_sigaction(action.handler);
    entry.set_flags(action.flags);
    entry.set_restorer(action.restorer);
    entry.set_mask(action.mask);
    entry.set_compat_sigaction(false);
  }
  *core.mutable_signals_s() = save_pending(pid, true);
}

images::signal_queue_entry save_pending(pid_t tid, bool shared) {
  images::signal_queue_entry queue;
  constexpr std::uint32_t batch = 32;
  siginfo_t signals[batch];
  static_assert(sizeof(siginfo_t) == 128);
  for (std::uint64_t offset = 0;;) {
    __ptrace_peeksiginfo_args args{offset, shared ? static_cast<std::uint32_t>(PTRACE_PEEKSIGINFO_SHARED) : 0U, batch};
    const auto count = base::check(::ptrace(PTRACE_PEEKSIGINFO, tid, &args, signals), "read pending signals of",
                                   fmt::format("thread {}", tid));
    for (long i = 0; i < count; ++i) {
      queue.add_signals()->set_siginfo(&signals[i], sizeof signals[i]);
    }
    if (count < batch) {
      return queue;
    }
    offset += static_cast<std::uint64_t>(count);
  }
}

void plan_signals(const TaskImage& task, const restorer::Inherited& inherited, restorer::Builder& builder) {
  int next = 0;
  for (int signo = 1; signo <= last_signal; ++signo) {
    if (signo == sigkill || signo == sigstop) {
      continue;
    }
    const auto& action = task.core.tc().sigactions(next++);
    if (action.compat_sigaction()) {
      throw base::Error("not supported by this version", task.name() + " is a 32-bit task", 0);
    }
    builder.plan().actions[signo - 1] = {action.sigaction(), action.flags(), action.restorer(), action.mask()};
    const bool plain = (action.sigaction() | action.flags() | action.restorer() | action.mask()) == 0;
    const auto bit = std::uint64_t{1} << (signo - 1);
    builder.plan().actions_to_set |= plain ? inherited.changed_actions & bit : bit;
  }
  restorer::Ref<restorer::PendingSignal> pending;
  std::uint32_t count = 0;
  plan_pending(task.core.tc().signals_s(), builder, pending, count);
  builder.plan().pending = pending;
  builder.plan().pending_count = count;
}

void plan_pending(const images::signal_queue_entry& queue, restorer::Builder& builder,
                  restorer::Ref<restorer::PendingSignal>& ref, std::uint32_t& count) {
  std::vector<restorer::PendingSignal> pending;
  for (const auto& entry : queue.signals()) {
    restorer::PendingSignal signal{};
    if (entry.siginfo().size() != sizeof signal.siginfo) {
      throw base::Error("corrupt checkpoint", fmt::format("a pending signal of {} bytes", entry.siginfo().size()), 0);
    }
    std::memcpy(signal.siginfo, entry.siginfo().data(), sizeof signal.siginfo);
    pending.push_back(signal);
  }
  ref = builder.add(pending);
  count = static_cast<std::uint32_t>(pending.size());
}

}  // namespace criu::task
