// SPDX-License-Identifier: LGPL-2.1-only
// The lines of /proc/PID/fdinfo that tell of watches and of file locks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace criu::kernel {

// What a filesystem knows one of its inodes by, beyond its number.
struct FileHandle {
  int type = 0;
  std::string bytes;  // empty: the filesystem has none to give
};

// One mark of an inotify or fanotify descriptor.
struct WatchMark {
  enum class On { inode, mount, filesystem };
  On on = On::inode;
  int wd = 0;             // inotify
  std::uint64_t ino = 0;  // of an inode
  std::uint32_t dev = 0;  // of an inode or a filesystem; as the kernel keeps it
  int mnt_id = -1;        // of a mount
  std::uint32_t flags = 0, mask = 0, ignored_mask = 0;
  FileHandle handle;
};
std::vector<WatchMark> inotify_marks(std::string_view text);
// The first line of an fanotify descriptor is about the whole of it.
struct FanotifyGroup {
  std::uint32_t flags = 0, event_flags = 0;
  std::vector<WatchMark> marks;
};
FanotifyGroup fanotify_group(std::string_view text);

struct FileLock {
  enum class Kind { posix, flock, ofd, lease };
  Kind kind = Kind::posix;
  int type = 0;                        // F_RDLCK, F_WRLCK, F_UNLCK; of a broken lease: what it is to become
  bool breaking = false;               // a lease that somebody waits for
  int mandatory = 0;                   // of a flock before Linux 5.17: LOCK_MAND and what it allows
  int pid = 0;                         // who took it; -1: not told
  std::int64_t start = 0, length = 0;  // 0: to the end
};
std::vector<FileLock> file_locks(std::string_view text);

}  // namespace criu::kernel
