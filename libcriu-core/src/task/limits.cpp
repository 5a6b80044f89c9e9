// SPDX-License-Identifier: LGPL-2.1-only
#include <sys/resource.h>

#include <algorithm>

#include "task/objects.hpp"

namespace criu::task {

void plan_limits(const TaskImage& task, restorer::Plan& plan) {
  const auto& limits = task.core.tc().rlimits().rlimits();
  plan.limit_count = static_cast<std::uint32_t>(std::min(limits.size(), 16));
  for (std::uint32_t i = 0; i < plan.limit_count; ++i) {
    const auto& limit = limits.Get(static_cast<int>(i));
    plan.limits[i] = {std::min(limit.cur(), limit.max()), limit.max()};
  }
}

}  // namespace criu::task
