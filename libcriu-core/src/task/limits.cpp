// SPDX-License-Identifier: LGPL-2.1-only
#include <sys/resource.h>

#include <algorithm>

#include "task/objects.hpp"

namespace criu::task {

void save_limits(pid_t pid, const procfs::Task& task, images::task_rlimits_entry& entry) {
  const auto add = [&](std::uint64_t soft, std::uint64_t hard) {
    auto& limit = *entry.add_rlimits();
    limit.set_cur(soft);
    limit.set_max(hard);
  };
  for (int resource = 0; resource < static_cast<int>(RLIM_NLIMITS); ++resource) {
    rlimit limit{};
    if (::prlimit(pid, static_cast<__rlimit_resource>(resource), nullptr, &limit) < 0) {
      // Without CAP_SYS_RESOURCE the limits of others are only told as a text.
      entry.Clear();
      for (const auto& [soft, hard] : procfs::parse_limits(task.read("limits"))) {
        add(soft, hard);
      }
      return;
    }
    add(limit.rlim_cur, limit.rlim_max);
  }
}

void plan_limits(const TaskImage& task, restorer::Plan& plan) {
  const auto& limits = task.core.tc().rlimits().rlimits();
  plan.limit_count = static_cast<std::uint32_t>(std::min(limits.size(), 16));
  for (std::uint32_t i = 0; i < plan.limit_count; ++i) {
    const auto& limit = limits.Get(static_cast<int>(i));
    plan.limits[i] = {std::min(limit.cur(), limit.max()), limit.max()};
  }
}

}  // namespace criu::task
