// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/time.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <timens.pb.h>
#include <unistd.h>

#include <ctime>
#include <sstream>

#include "base/error.hpp"
#include "log.hpp"

namespace criu::namespaces {

namespace {

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080  // 5.6
#endif

constexpr std::int64_t billion = 1000000000;

struct Offsets {
  std::int64_t monotonic = 0, boottime = 0;  // nanoseconds
};

// "monotonic  SECONDS NANOSECONDS", and the same for boottime.
Offsets read_offsets(const procfs::Task& task) {
  Offsets offsets;
  std::istringstream text(task.read("timens_offsets"));
  std::string clock;
  for (std::int64_t seconds = 0, nanoseconds = 0; text >> clock >> seconds >> nanoseconds;) {
    (clock == "monotonic" ? offsets.monotonic : offsets.boottime) = seconds * billion + nanoseconds;
  }
  return offsets;
}

std::int64_t now(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return time.tv_sec * billion + time.tv_nsec;
}

void set(images::timespec& entry, std::int64_t time) {
  entry.set_tv_sec(static_cast<std::uint64_t>(time / billion));
  entry.set_tv_nsec(static_cast<std::uint64_t>(time % billion));
}

std::int64_t get(const images::timespec& entry) {
  if (entry.tv_nsec() >= static_cast<std::uint64_t>(billion) ||
      entry.tv_sec() > static_cast<std::uint64_t>(billion) * 8) {
    throw base::Error("corrupt checkpoint", "the clocks of its time namespace", 0);
  }
  return static_cast<std::int64_t>(entry.tv_sec()) * billion + static_cast<std::int64_t>(entry.tv_nsec());
}

std::string as_line(const char* clock, std::int64_t offset) {
  // Nanoseconds count upwards, also from a negative second.
  auto seconds = offset / billion;
  auto nanoseconds = offset % billion;
  if (nanoseconds < 0) {
    --seconds;
    nanoseconds += billion;
  }
  return fmt::format("{} {} {}\n", clock, seconds, nanoseconds);
}

}  // namespace

void save_clocks(const image::Directory& images, const procfs::Task& root, const images::task_kobj_ids_entry& root_ids,
                 const images::task_kobj_ids_entry& own_ids) {
  const bool own_ns = root_ids.time_ns_id() != own_ids.time_ns_id();
  Offsets shift;
  if (own_ns) {
    const auto theirs = read_offsets(root);
    const auto ours = read_offsets(procfs::Task(::getpid()));
    shift = {theirs.monotonic - ours.monotonic, theirs.boottime - ours.boottime};
  }
  images::timens_entry entry;
  set(*entry.mutable_monotonic(), now(CLOCK_MONOTONIC) + shift.monotonic);
  set(*entry.mutable_boottime(), now(CLOCK_BOOTTIME) + shift.boottime);
  images.put(image::type::timens, own_ns ? root_ids.time_ns_id() : 0, entry);
}

RestoredClocks::RestoredClocks(const image::Directory& images, const Checkpoint& checkpoint) {
  const auto& ids = checkpoint.root().ids;
  const bool own_ns = ids.has_time_ns_id() && ids.time_ns_id() != checkpoint.inventory.root_ids().time_ns_id();
  auto reader = images.open(image::type::timens, own_ns ? ids.time_ns_id() : 0);
  if (!reader) {
    return;
  }
  images::timens_entry entry;
  reader->only(entry);
  const auto ours = read_offsets(procfs::Task(::getpid()));
  const auto text = as_line("monotonic", ours.monotonic + get(entry.monotonic()) - now(CLOCK_MONOTONIC)) +
                    as_line("boottime", ours.boottime + get(entry.boottime()) - now(CLOCK_BOOTTIME));
  before_ = base::Fd(::open("/proc/self/ns/time_for_children", O_RDONLY | O_CLOEXEC));
  if (!before_ || ::unshare(CLONE_NEWTIME) < 0) {
    LOG_WARN("the clocks of the restored tasks will jump: no time namespace: {}", std::strerror(errno));
    before_.reset();
    return;
  }
  const base::Fd file(
      base::check(::open("/proc/self/timens_offsets", O_WRONLY | O_CLOEXEC), "open", "/proc/self/timens_offsets"));
  base::check(::write(file.get(), text.data(), text.size()), "set the clocks of the time namespace", text);
}

RestoredClocks::~RestoredClocks() {
  if (before_) {
    ::setns(before_.get(), CLONE_NEWTIME);
  }
}

}  // namespace criu::namespaces
