// SPDX-License-Identifier: LGPL-2.1-only
#include <fmt/format.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ptrace.h>

#include <algorithm>

#include "base/error.hpp"
#include "task/objects.hpp"

namespace criu::task {

namespace {

// Newest first, as the kernel counts and as the image stores a chain.
std::vector<images::seccomp_filter> read_chain(pid_t tid) {
  const auto who = fmt::format("thread {}", tid);
  std::vector<images::seccomp_filter> chain;
  for (std::uint64_t index = 0;; ++index) {
    const auto count = ::ptrace(PTRACE_SECCOMP_GET_FILTER, tid, index, nullptr);
    if (count < 0 && errno == ENOENT) {
      return chain;
    }
    base::check(count, "read the seccomp filters of", who,
                "this takes CAP_SYS_ADMIN, and a dumper without seccomp filters of its own");
    std::vector<sock_filter> instructions(static_cast<std::size_t>(count));
    base::check(::ptrace(PTRACE_SECCOMP_GET_FILTER, tid, index, instructions.data()), "read the seccomp filters of",
                who);
    struct {
      std::uint64_t filter_off, flags;
    } metadata = {index, 0};
    base::check(::ptrace(PTRACE_SECCOMP_GET_METADATA, tid, sizeof metadata, &metadata), "read the seccomp flags of",
                who);
    auto& filter = chain.emplace_back();
    filter.set_filter(instructions.data(), instructions.size() * sizeof instructions[0]);
    filter.set_flags(static_cast<std::uint32_t>(metadata.flags));
  }
}

}  // namespace

void save_seccomp(pid_t tid, const procfs::Status& status, images::seccomp_entry& filters,
                  images::thread_core_entry& core) {
  if (status.seccomp == SECCOMP_MODE_DISABLED) {
    return;
  }
  core.set_seccomp_mode(static_cast<images::seccomp_mode>(status.seccomp));
  if (status.seccomp != SECCOMP_MODE_FILTER) {
    return;
  }
  const auto chain = read_chain(tid);
  for (std::size_t i = 0; i < chain.size(); ++i) {
    auto& filter = *filters.add_seccomp_filters();
    filter = chain[i];
    if (i > 0) {
      filter.set_prev(static_cast<std::uint32_t>(filters.seccomp_filters_size()) - 2);
    }
  }
  core.set_seccomp_filter(static_cast<std::uint32_t>(filters.seccomp_filters_size()) - 1);
}

namespace {

using Chain = std::vector<const images::seccomp_filter*>;

// The filters of a thread, the oldest first.
Chain chain_of(const Checkpoint& checkpoint, const images::thread_core_entry& core, const std::string& who) {
  Chain chain;
  if (core.seccomp_mode() != images::filter) {
    return chain;
  }
  const auto& all = checkpoint.seccomp.seccomp_filters();
  // `prev` leads to the next newer one.
  for (auto index = core.seccomp_filter();;) {
    if (index >= static_cast<std::uint32_t>(all.size()) || chain.size() > static_cast<std::size_t>(all.size())) {
      throw base::Error("corrupt checkpoint", fmt::format("seccomp filter {} of {}", index, who), 0);
    }
    const auto& entry = all.Get(static_cast<int>(index));
    const auto count = entry.filter().size() / sizeof(std::uint64_t);
    if (count == 0 || count > 0xffff || entry.filter().size() % sizeof(std::uint64_t) != 0) {
      throw base::Error("corrupt checkpoint", fmt::format("seccomp filter {} of {}", index, who), 0);
    }
    chain.push_back(&entry);
    if (!entry.has_prev()) {
      return chain;
    }
    index = entry.prev();
  }
}

std::size_t common_length(const Chain& a, const Chain& b) {
  const auto same = [](const auto* x, const auto* y) { return x->filter() == y->filter() && x->flags() == y->flags(); };
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end(), same).first - a.begin());
}

void plan_chain(const Chain& chain, std::size_t from, restorer::Builder& builder, restorer::Thread& planned) {
  std::vector<restorer::SeccompFilter> filters;
  for (auto at = from; at < chain.size(); ++at) {
    const auto& text = chain[at]->filter();
    std::vector<std::uint64_t> instructions(text.size() / sizeof(std::uint64_t));
    std::memcpy(instructions.data(), text.data(), text.size());
    filters.push_back({builder.add(instructions), static_cast<std::uint32_t>(instructions.size()), chain[at]->flags()});
  }
  planned.filters = builder.add(filters);
  planned.filter_count = static_cast<std::uint32_t>(filters.size());
}

}  // namespace

// Filters that threads have in common must be the same objects again, or the kernel would not let a thread give a new
// one to all of them.
void plan_seccomp(const Checkpoint& checkpoint, const TaskImage& task, restorer::Builder& builder,
                  std::vector<restorer::Thread>& threads) {
  std::vector<Chain> chains;
  const auto add = [&](const images::core_entry& core) {
    const auto who = fmt::format("thread {} of {}", threads[chains.size()].tid, task.name());
    threads[chains.size()].seccomp_mode = core.thread_core().seccomp_mode();
    chains.push_back(chain_of(checkpoint, core.thread_core(), who));
  };
  add(task.core);
  for (const auto& core : task.threads) {
    add(core);
  }
  auto common = chains.size() > 1 ? chains[0].size() : 0;
  for (const auto& chain : chains) {
    common = std::min(common, common_length(chains[0], chain));
  }
  for (std::size_t i = 0; i < chains.size(); ++i) {
    plan_chain(chains[i], i == 0 ? 0 : common, builder, threads[i]);
  }
  builder.plan().common_filters = static_cast<std::uint32_t>(common);
}

}  // namespace criu::task
