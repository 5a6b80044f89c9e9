// SPDX-License-Identifier: LGPL-2.1-only
// inotify. Programs know their watches by number, so each gets its number again. They are added last of all, by the
// master: what the restore opens and makes is nothing that the tree should hear of.
#include "files/inotify.hpp"

#include <sys/inotify.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "files/common.hpp"
#include "files/saver.hpp"
#include "kernel/fdinfo_marks.hpp"
#include "log.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// The number of the next watch, Linux 4.16.
constexpr unsigned long set_next_wd = _IOW('I', 0, std::int32_t);

std::string name_watch(const Description& description, int wd) {
  return fmt::format("watch {} of {}", wd, description.what());
}

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  refuse_in_flight(description);
  auto& inotify = *entry.mutable_ify();
  inotify.set_id(entry.id());
  inotify.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  for (const auto& mark : kernel::inotify_marks(description.info.text)) {
    saver.inodes().meet(mark);
  }
  int waiting = 0;
  if (::ioctl(description.own, FIONREAD, &waiting) == 0 && waiting > 0) {
    LOG_WARN("{}: {} bytes of events that nobody has read yet are not saved", description.what(), waiting);
  }
}

void save_late(Saver& saver, const Description& description, images::file_entry& entry) {
  auto marks = kernel::inotify_marks(description.info.text);
  std::sort(marks.begin(), marks.end(), [](const auto& a, const auto& b) { return a.wd < b.wd; });
  for (const auto& mark : marks) {
    auto& watch = *entry.mutable_ify()->add_wd();
    watch.set_id(0);
    watch.set_i_ino(mark.ino);
    watch.set_mask(mark.mask);
    watch.set_ignored_mask(mark.ignored_mask);
    watch.set_s_dev(mark.dev);
    watch.set_wd(static_cast<std::uint32_t>(mark.wd));
    saver.inodes().describe(mark, saver.removed(), name_watch(description, mark.wd), *watch.mutable_f_handle());
  }
}

std::vector<base::Fd> make(RestoreContext&, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->ify();
  const auto what = fmt::format("inotify (file {})", entry.id());
  base::Fd fd(check(::inotify_init1(IN_CLOEXEC), "make", what));
  set_flags(fd.get(), entry.flags(), what);
  return one(std::move(fd));
}

void add_watch(RestoreContext& context, int inotify, const images::inotify_wd_entry& watch, int& next,
               const std::string& what) {
  const auto target = open_watched(context, watch.s_dev(), watch.i_ino(), watch.f_handle(), what);
  const auto wanted = static_cast<std::int32_t>(watch.wd());
  if (wanted != next) {
    check(::ioctl(inotify, set_next_wd, static_cast<long>(wanted)), "choose the number of", what);
  }
  constexpr std::uint32_t settable = IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_ONESHOT;
  const auto got = check(
      ::inotify_add_watch(inotify, fmt::format("/proc/self/fd/{}", target.get()).c_str(), watch.mask() & settable),
      "add", what);
  if (got != wanted) {
    throw Error("cannot restore", fmt::format("{} became number {}: another one is on the same file", what, got), 0);
  }
  next = wanted + 1;
}

void finish(RestoreContext& context, const Made& made) {
  auto watches = made.entry->ify().wd();
  std::sort(watches.begin(), watches.end(), [](const auto& a, const auto& b) { return a.wd() < b.wd(); });
  int next = 1;
  for (const auto& watch : watches) {
    const auto what = fmt::format("watch {} of inotify (file {})", watch.wd(), made.entry->id());
    if (watch.wd() == 0 || watch.wd() >= 0x7fffffff) {
      throw Error("corrupt checkpoint", what + ": no such number", 0);
    }
    add_watch(context, made.fd, watch, next, what);
  }
}

}  // namespace

const Kind inotify_kind = {
    .type = images::INOTIFY,
    .name = "inotify",
    .recognise = [](const Description& description) { return description.link == "anon_inode:inotify"; },
    .save = save,
    .save_late = save_late,
    .owner = [](images::file_entry& entry) { return entry.mutable_ify()->mutable_fown(); },
    .make = make,
    .finish = finish,
};

}  // namespace criu::files
