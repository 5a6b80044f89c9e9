// SPDX-License-Identifier: LGPL-2.1-only
// fanotify: marks on inodes, mounts and whole filesystems. Like inotify's they are set last of all, by the master.
#include "files/fanotify.hpp"

#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "files/common.hpp"
#include "files/saver.hpp"
#include "kernel/fdinfo_marks.hpp"
#include "log.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;
using kernel::WatchMark;

namespace {

// Flags of a mark that fdinfo tells.
constexpr std::uint32_t survives_modification = 0x40;  // FAN_MARK_IGNORED_SURV_MODIFY
constexpr std::uint32_t evictable = 0x200;             // FAN_MARK_EVICTABLE, Linux 5.19
constexpr std::uint32_t ignores = 0x400;               // FAN_MARK_IGNORE, Linux 6.0

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  refuse_in_flight(description);
  const auto group = kernel::fanotify_group(description.info.text);
  auto& fanotify = *entry.mutable_ffy();
  fanotify.set_id(entry.id());
  fanotify.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  fanotify.set_faflags(group.flags);
  fanotify.set_evflags(group.event_flags);
  for (const auto& mark : group.marks) {
    if (mark.on == WatchMark::On::inode) {
      saver.inodes().meet(mark);
    }
  }
  int waiting = 0;
  if (::ioctl(description.own, FIONREAD, &waiting) == 0 && waiting > 0) {
    LOG_WARN("{}: {} bytes of events that nobody has read yet are not saved", description.what(), waiting);
  }
}

void save_filesystem_mark(Saver& saver, const WatchMark& mark, const std::string& what,
                          images::fanotify_file_entry& fanotify) {
  auto& saved = *fanotify.add_filesystem_mark();
  saved.set_s_dev(mark.dev);
  saved.set_mflags(mark.flags);
  saved.set_mask(mark.mask);
  saved.set_ignored_mask(mark.ignored_mask);
  saved.set_path(saver.inodes().mount_of(mark.dev, what).point);
}

void save_late(Saver& saver, const Description& description, images::file_entry& entry) {
  for (const auto& mark : kernel::fanotify_group(description.info.text).marks) {
    const auto what = "a mark of " + description.what();
    if (mark.on == WatchMark::On::filesystem) {
      save_filesystem_mark(saver, mark, what, *entry.mutable_ffy());
      continue;
    }
    auto& saved = *entry.mutable_ffy()->add_mark();
    saved.set_id(0);
    saved.set_mflags(mark.flags);
    saved.set_mask(mark.mask);
    saved.set_ignored_mask(mark.ignored_mask);
    if (mark.on == WatchMark::On::inode) {
      saved.set_type(images::INODE);
      saved.set_s_dev(mark.dev);
      saved.mutable_ie()->set_i_ino(mark.ino);
      saver.inodes().describe(mark, saver.removed(), what, *saved.mutable_ie()->mutable_f_handle());
    } else {
      const auto& mount = saver.inodes().mount(mark.mnt_id, what);
      saved.set_type(images::MOUNT);
      saved.set_s_dev(mount.dev);
      saved.mutable_me()->set_mnt_id(static_cast<std::uint32_t>(mark.mnt_id));
      saved.mutable_me()->set_path(mount.point);
    }
  }
}

std::vector<base::Fd> make(RestoreContext&, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->ffy();
  const auto what = fmt::format("fanotify (file {})", entry.id());
  // Whether it was made close-on-exec is told for ever.
  base::Fd fd(check(::fanotify_init(entry.faflags(), entry.evflags()), "make", what));
  check(::fcntl(fd.get(), F_SETFD, FD_CLOEXEC), "set the close-on-exec flag of", what);
  check(::fcntl(fd.get(), F_SETFL, static_cast<int>(entry.flags() & settable_flags)), "set flags of", what);
  return one(std::move(fd));
}

// What is expected and what is ignored are set by calls of their own.
void add_mark(int fanotify, unsigned type, std::uint32_t flags, std::uint32_t mask, std::uint32_t ignored, int target,
              const std::string& what) {
  const auto path = fmt::format("/proc/self/fd/{}", target);
  const auto add = [&](unsigned more, std::uint32_t events) {
    if (events != 0) {
      check(::fanotify_mark(fanotify, FAN_MARK_ADD | type | (flags & evictable) | more, events, AT_FDCWD, path.c_str()),
            "set", what);
    }
  };
  add(0, mask);
  add(((flags & ignores) != 0 ? ignores : FAN_MARK_IGNORED_MASK) | (flags & survives_modification), ignored);
}

base::Fd open_mount(const std::string& path, const std::string& what) {
  base::Fd fd(
      check(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC), "open", fmt::format("{} for {}", path, what)));
  struct statx info {};
  check(::statx(fd.get(), "", AT_EMPTY_PATH, STATX_TYPE, &info), "stat", path);
  if ((info.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) != 0 && (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0) {
    throw Error("cannot restore", fmt::format("{}: nothing is mounted on {}", what, path), 0);
  }
  return fd;
}

void finish(RestoreContext& context, const Made& made) {
  const auto& entry = made.entry->ffy();
  const auto what = fmt::format("a mark of fanotify (file {})", made.entry->id());
  for (const auto& mark : entry.mark()) {
    const bool inode = mark.type() == images::INODE;
    if (inode ? !mark.has_ie() : !mark.me().has_path()) {
      throw Error("corrupt checkpoint", what + " says not what it is on", 0);
    }
    const auto target = inode ? open_watched(context, mark.s_dev(), mark.ie().i_ino(), mark.ie().f_handle(), what)
                              : open_mount(mark.me().path(), what);
    add_mark(made.fd, inode ? FAN_MARK_INODE : FAN_MARK_MOUNT, mark.mflags(), mark.mask(), mark.ignored_mask(),
             target.get(), what);
  }
  for (const auto& mark : entry.filesystem_mark()) {
    const auto target = open_mount(mark.path(), what);
    add_mark(made.fd, FAN_MARK_FILESYSTEM, mark.mflags(), mark.mask(), mark.ignored_mask(), target.get(), what);
  }
}

}  // namespace

const Kind fanotify_kind = {
    .type = images::FANOTIFY,
    .name = "fanotify",
    .recognise = [](const Description& description) { return description.link == "anon_inode:[fanotify]"; },
    .save = save,
    .save_late = save_late,
    .owner = [](images::file_entry& entry) { return entry.mutable_ffy()->mutable_fown(); },
    .make = make,
    .finish = finish,
};

}  // namespace criu::files
