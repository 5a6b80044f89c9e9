// SPDX-License-Identifier: LGPL-2.1-only
#include <fmt/format.h>

#include <algorithm>

#include "base/error.hpp"
#include "task/objects.hpp"

namespace criu::task {

namespace {

[[noreturn]] void corrupt(const TaskImage& task) {
  throw base::Error("corrupt checkpoint", "a timer of " + task.name(), 0);
}

// A periodic timer caught at the very moment it ran out must stay armed.
restorer::Itimer itimer_from(const TaskImage& task, const images::itimer_entry& entry) {
  constexpr std::uint64_t million = 1000000;
  if (entry.iusec() >= million || entry.vusec() >= million) {
    corrupt(task);
  }
  const auto as = [](std::uint64_t v) { return static_cast<std::int64_t>(v); };
  restorer::Itimer timer{as(entry.isec()), as(entry.iusec()), as(entry.vsec()), as(entry.vusec())};
  if (entry.vsec() == 0 && entry.vusec() == 0) {
    timer.left_sec = timer.interval_sec;
    timer.left_usec = timer.interval_usec;
  }
  return timer;
}

}  // namespace

namespace {

void save_itimer(const parasite::IntervalTimer& timer, images::itimer_entry& entry) {
  entry.set_isec(static_cast<std::uint64_t>(timer.interval_sec));
  entry.set_iusec(static_cast<std::uint64_t>(timer.interval_usec));
  entry.set_vsec(static_cast<std::uint64_t>(timer.left_sec));
  entry.set_vusec(static_cast<std::uint64_t>(timer.left_usec));
}

}  // namespace

void save_timers(const std::vector<procfs::Timer>& known, const parasite::ProcessInfo& info,
                 const std::vector<parasite::Timer>& read, images::task_timers_entry& timers) {
  save_itimer(info.itimers[0], *timers.mutable_real());
  save_itimer(info.itimers[1], *timers.mutable_virt());
  save_itimer(info.itimers[2], *timers.mutable_prof());
  for (std::size_t i = 0; i < known.size(); ++i) {
    auto& entry = *timers.add_posix();
    entry.set_it_id(static_cast<std::uint32_t>(known[i].id));
    entry.set_clock_id(static_cast<std::uint32_t>(known[i].clock));
    entry.set_si_signo(static_cast<std::uint32_t>(known[i].signo));
    entry.set_it_sigev_notify(static_cast<std::uint32_t>(known[i].notify));
    entry.set_sival_ptr(known[i].value);
    entry.set_overrun(static_cast<std::uint32_t>(read[i].overrun));
    entry.set_isec(static_cast<std::uint64_t>(read[i].interval_sec));
    entry.set_insec(static_cast<std::uint64_t>(read[i].interval_nsec));
    entry.set_vsec(static_cast<std::uint64_t>(read[i].left_sec));
    entry.set_vnsec(static_cast<std::uint64_t>(read[i].left_nsec));
    if (known[i].tid != 0) {
      entry.set_notify_thread_id(static_cast<std::uint32_t>(known[i].tid));
    }
  }
}

void plan_timers(const TaskImage& task, restorer::Builder& builder) {
  const auto& timers = task.core.tc().timers();
  builder.plan().itimers[0] = itimer_from(task, timers.real());
  builder.plan().itimers[1] = itimer_from(task, timers.virt());
  builder.plan().itimers[2] = itimer_from(task, timers.prof());

  std::vector<restorer::PosixTimer> planned;
  for (const auto& entry : timers.posix()) {
    constexpr std::uint64_t billion = 1000000000;
    if (entry.insec() >= billion || entry.vnsec() >= billion) {
      corrupt(task);
    }
    restorer::PosixTimer timer{};
    timer.id = static_cast<std::int32_t>(entry.it_id());
    timer.clock = static_cast<std::int32_t>(entry.clock_id());
    timer.signo = static_cast<std::int32_t>(entry.si_signo());
    timer.notify = static_cast<std::int32_t>(entry.it_sigev_notify());
    timer.value = entry.sival_ptr();
    timer.tid = entry.has_notify_thread_id() ? static_cast<std::int32_t>(entry.notify_thread_id()) : 0;
    timer.interval_sec = static_cast<std::int64_t>(entry.isec());
    timer.interval_nsec = static_cast<std::int64_t>(entry.insec());
    timer.left_sec = static_cast<std::int64_t>(entry.vsec());
    timer.left_nsec = static_cast<std::int64_t>(entry.vnsec());
    if (timer.left_sec == 0 && timer.left_nsec == 0) {
      timer.left_sec = timer.interval_sec;
      timer.left_nsec = timer.interval_nsec;
    }
    planned.push_back(timer);
  }
  // In the order of their ids, since older kernels hand them out in ascending order only.
  std::sort(planned.begin(), planned.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  const auto ref = builder.add(planned);
  builder.plan().timers = ref;
  builder.plan().timer_count = static_cast<std::uint32_t>(planned.size());
}

}  // namespace criu::task
