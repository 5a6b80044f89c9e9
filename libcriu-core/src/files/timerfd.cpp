// SPDX-License-Identifier: LGPL-2.1-only
#include "files/timerfd.hpp"

#include <sys/ioctl.h>
#include <sys/timerfd.h>

#include <ctime>

#include "files/common.hpp"
#include "kernel/procfs.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

#ifndef TFD_IOC_SET_TICKS
#define TFD_IOC_SET_TICKS _IOW('T', 0, std::uint64_t)
#endif

constexpr std::uint64_t second = 1'000'000'000;

bool is_moment(const images::timerfd_entry& entry) {
  return (entry.settime_flags() & TFD_TIMER_ABSTIME) != 0 &&
         (entry.clockid() == CLOCK_REALTIME || entry.clockid() == CLOCK_REALTIME_ALARM);
}

// A periodic timer that nobody reads stops at its first expiration, and the kernel works out the others when it is
// asked how long it is to the next.
std::string up_to_date(const Description& description) {
  if (description.own < 0) {
    return description.info.text;
  }
  itimerspec next{};
  check(::timerfd_gettime(description.own, &next), "ask for the next expiration of", description.what());
  const auto name = fmt::format("self/fdinfo/{}", description.own);
  const base::Fd proc(check(::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open", "/proc"));
  return procfs::read_file(proc.get(), name.c_str(), description.what());
}

void save(Saver&, const Description& description, images::file_entry& entry) {
  const auto info = up_to_date(description);
  const std::string_view text = info;
  auto& timerfd = *entry.mutable_tfd();
  timerfd.set_id(entry.id());
  timerfd.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  timerfd.set_clockid(static_cast<std::uint32_t>(kernel::number(text, "clockid")));
  timerfd.set_ticks(kernel::number(text, "ticks"));
  timerfd.set_settime_flags(static_cast<std::uint32_t>(kernel::number(text, "settime flags", 8)));
  const auto value = kernel::time(text, "it_value");
  const auto interval = kernel::time(text, "it_interval");
  timerfd.set_vsec(value.seconds);
  timerfd.set_vnsec(value.nanoseconds);
  // A moment of the day stays one, however far the clock is from it by the time of the restore.
  if (is_moment(timerfd) && (value.seconds != 0 || value.nanoseconds != 0)) {
    timespec now{};
    check(::clock_gettime(CLOCK_REALTIME, &now), "read the clock for", description.what());
    const auto nanoseconds = static_cast<std::uint64_t>(now.tv_nsec) + value.nanoseconds;
    timerfd.set_moment_sec(static_cast<std::uint64_t>(now.tv_sec) + value.seconds + nanoseconds / second);
    timerfd.set_moment_nsec(nanoseconds % second);
  }
  timerfd.set_isec(interval.seconds);
  timerfd.set_insec(interval.nanoseconds);
}

itimerspec setting(const images::timerfd_entry& entry, const std::string& what) {
  constexpr std::uint64_t longest = std::uint64_t{1} << 62;
  if (entry.vsec() > longest || entry.isec() > longest || entry.vnsec() >= second || entry.insec() >= second ||
      entry.moment_sec() > longest || entry.moment_nsec() >= second ||
      (entry.settime_flags() & ~static_cast<unsigned>(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)) != 0) {
    throw Error("corrupt checkpoint", what + " is set to no possible time", 0);
  }
  itimerspec spec{{static_cast<time_t>(entry.isec()), static_cast<long>(entry.insec())},
                  {static_cast<time_t>(entry.vsec()), static_cast<long>(entry.vnsec())}};
  const bool periodic = entry.isec() != 0 || entry.insec() != 0;
  const bool due = entry.vsec() == 0 && entry.vnsec() == 0;
  if (due && periodic) {
    spec.it_value.tv_nsec = 1;  // caught in the moment of its expiry; zero would disarm it
  } else if (!due && entry.has_moment_sec() && is_moment(entry)) {
    spec.it_value = {static_cast<time_t>(entry.moment_sec()), static_cast<long>(entry.moment_nsec())};
  } else if (!due && (entry.settime_flags() & TFD_TIMER_ABSTIME) != 0) {
    // What was left is what the image has, whichever way the timer was set.
    timespec now{};
    check(::clock_gettime(static_cast<clockid_t>(entry.clockid()), &now), "read the clock of", what);
    const auto nanoseconds = static_cast<std::uint64_t>(now.tv_nsec) + entry.vnsec();
    spec.it_value.tv_sec += now.tv_sec + static_cast<time_t>(nanoseconds / second);
    spec.it_value.tv_nsec = static_cast<long>(nanoseconds % second);
  }
  return spec;
}

std::vector<base::Fd> make(RestoreContext&, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->tfd();
  const auto what = fmt::format("timerfd (file {})", entry.id());
  base::Fd fd(check(::timerfd_create(static_cast<clockid_t>(entry.clockid()), TFD_CLOEXEC), "make", what));
  const auto spec = setting(entry, what);
  check(::timerfd_settime(fd.get(), static_cast<int>(entry.settime_flags()), &spec, nullptr), "set", what);
  if (const std::uint64_t ticks = entry.ticks(); ticks != 0) {
    check(::ioctl(fd.get(), TFD_IOC_SET_TICKS, &ticks), "set the expirations of", what);
  }
  set_flags(fd.get(), entry.flags(), what);
  return one(std::move(fd));
}

}  // namespace

const Kind timerfd_kind = {
    .type = images::TIMERFD,
    .name = "timerfd",
    .recognise = [](const Description& description) { return description.link == "anon_inode:[timerfd]"; },
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_tfd()->mutable_fown(); },
    .make = make,
};

}  // namespace criu::files
