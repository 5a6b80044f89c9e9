// SPDX-License-Identifier: LGPL-2.1-only
#include <fmt/format.h>

#include "base/error.hpp"
#include "task/objects.hpp"

namespace criu::task {

void plan_seccomp(const Checkpoint& checkpoint, const images::thread_core_entry& core, const std::string& who,
                  restorer::Builder& builder, restorer::Thread& planned) {
  planned.seccomp_mode = core.seccomp_mode();
  if (core.seccomp_mode() != images::filter) {
    return;
  }
  const auto& all = checkpoint.seccomp.seccomp_filters();
  std::vector<restorer::SeccompFilter> chain;
  // The oldest filter first; `prev` leads to the next newer one.
  for (auto index = core.seccomp_filter();;) {
    if (index >= static_cast<std::uint32_t>(all.size()) || chain.size() > static_cast<std::size_t>(all.size())) {
      throw base::Error("corrupt checkpoint", fmt::format("seccomp filter {} of {}", index, who), 0);
    }
    const auto& entry = all.Get(static_cast<int>(index));
    const auto count = entry.filter().size() / sizeof(std::uint64_t);
    if (count == 0 || count > 0xffff || entry.filter().size() % sizeof(std::uint64_t) != 0) {
      throw base::Error("corrupt checkpoint", fmt::format("seccomp filter {} of {}", index, who), 0);
    }
    std::vector<std::uint64_t> instructions(count);
    std::memcpy(instructions.data(), entry.filter().data(), entry.filter().size());
    chain.push_back({builder.add(instructions), static_cast<std::uint32_t>(count), entry.flags()});
    if (!entry.has_prev()) {
      break;
    }
    index = entry.prev();
  }
  planned.filters = builder.add(chain);
  planned.filter_count = static_cast<std::uint32_t>(chain.size());
}

}  // namespace criu::task
