// SPDX-License-Identifier: LGPL-2.1-only
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>

#include "base/error.hpp"
#include "log.hpp"
#include "namespaces/steward.hpp"
#include "restore_context.hpp"
#include "task/objects.hpp"

namespace criu::task {

namespace {

constexpr const char* names[] = {"RLIMIT_CPU",      "RLIMIT_FSIZE", "RLIMIT_DATA",   "RLIMIT_STACK",
                                 "RLIMIT_CORE",     "RLIMIT_RSS",   "RLIMIT_NPROC",  "RLIMIT_NOFILE",
                                 "RLIMIT_MEMLOCK",  "RLIMIT_AS",    "RLIMIT_LOCKS",  "RLIMIT_SIGPENDING",
                                 "RLIMIT_MSGQUEUE", "RLIMIT_NICE",  "RLIMIT_RTPRIO", "RLIMIT_RTTIME"};

// By default the kernel makes these of the size of the memory, so that no two machines have the same.
bool sized_by_machine(std::uint32_t resource) { return resource == RLIMIT_NPROC || resource == RLIMIT_SIGPENDING; }

// Raises the hard limit of this process, which is becoming the task, as far as it must and may; the soft one is for the
// restorer to set.
rlim_t make_room(const RestoreContext& context, const TaskImage& task, std::uint32_t resource, rlim_t wanted) {
  auto own = context.inherited.limits[resource];
  const auto allowed = own.rlim_max;
  own.rlim_max = wanted;
  if (wanted <= allowed || ::setrlimit(static_cast<__rlimit_resource>(resource), &own) == 0 ||
      (namespaces::Steward::current() != nullptr &&
       namespaces::Steward::current()->raise_hard_limit(static_cast<int>(resource), wanted))) {
    return wanted;
  }
  if (!sized_by_machine(resource)) {
    throw base::Error("raise the hard limit", fmt::format("{} of {} to {}", names[resource], task.name(), wanted),
                      errno, fmt::format("it is {} here, and to raise it takes CAP_SYS_RESOURCE", allowed));
  }
  LOG_WARN("{} of {} was {} and is {}, as on this machine: to raise it takes CAP_SYS_RESOURCE", names[resource],
           task.name(), wanted, allowed);
  return allowed;
}

}  // namespace

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

void plan_limits(const RestoreContext& context, const TaskImage& task, restorer::Plan& plan) {
  const auto& limits = task.core.tc().rlimits().rlimits();
  const auto count = static_cast<std::uint32_t>(std::min<int>(limits.size(), RLIM_NLIMITS));
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto& limit = limits.Get(static_cast<int>(i));
    const auto& own = context.inherited.limits[i];
    const auto hard = make_room(context, task, i, limit.max());
    plan.limits[i] = {std::min(limit.cur(), hard), hard};
    if (plan.limits[i].rlim_cur != own.rlim_cur || hard != own.rlim_max) {
      plan.limits_to_set |= 1U << i;
    }
  }
}

}  // namespace criu::task
