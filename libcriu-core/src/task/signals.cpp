// SPDX-License-Identifier: LGPL-2.1-only
#include <fmt/format.h>

#include "base/error.hpp"
#include "task/objects.hpp"

namespace criu::task {

namespace {

constexpr int sigkill = 9, sigstop = 19, last_signal = 64;

}  // namespace

void plan_signals(const TaskImage& task, restorer::Builder& builder) {
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
