// SPDX-License-Identifier: LGPL-2.1-only
// What inotify and fanotify watch: inodes, told by their number and perhaps a handle. At a dump a file is looked for by
// its handle; where a handle leads nowhere, or not for long, by a path that is found out.
#pragma once

#include <fh.pb.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "kernel/fdinfo_marks.hpp"
#include "kernel/mounts.hpp"

namespace criu {

struct DumpContext;
struct RestoreContext;

namespace files {

class Removed;

class WatchedInodes {
 public:
  explicit WatchedInodes(DumpContext& dump) : dump_(dump) {}

  // In two steps, so that all that need a scan share one. First for every mark, when it is met:
  void meet(const kernel::WatchMark&);
  // and then, with all files known: fills in what a restore finds the inode by. What cannot be found again is an Error.
  void describe(const kernel::WatchMark&, const Removed&, const std::string& what, images::fh_entry&);

  // The mount of a mount mark; not found, or hidden by another: an Error.
  const kernel::Mount& mount(int id, const std::string& what);
  // A mount of this filesystem.
  const kernel::Mount& mount_of(std::uint32_t dev, const std::string& what);
  // The mounts of this process, read when they are first asked for.
  const kernel::Mounts& mounts();
  // What scanning took, in microseconds.
  std::uint64_t scan_time() const { return scan_time_; }

 private:
  using Inode = std::pair<std::uint32_t, std::uint64_t>;  // device and number, as the kernel tells them
  struct Found {
    kernel::WatchMark mark;
    bool by_handle = false;
    std::string path;                                // instead, or besides
    std::optional<std::pair<dev_t, ino_t>> removed;  // it has no name any more
  };

  void look_by_handle(Found&);
  // A path that may be what is scanned for, by its number; any at all where numbers tell nothing.
  void consider(std::uint64_t ino, int directory, const char* name, const std::string& path);
  bool claim(Found&, int directory, const char* name, const std::string& path);
  void scan();
  void read_cache(const std::string& directory);
  void scan_below(const std::string& path);

  DumpContext& dump_;
  std::unique_ptr<kernel::Mounts> mounts_;
  kernel::MarkProbe probe_;
  std::map<Inode, Found> found_;
  std::multimap<std::uint64_t, Found*> wanted_;  // those to be scanned for, by number
  std::uint64_t scan_time_ = 0;                  // microseconds
};

// Restore: the watched file (O_PATH). In the master.
base::Fd open_watched(RestoreContext&, std::uint32_t dev, std::uint64_t ino, const images::fh_entry&,
                      const std::string& what);

}  // namespace files
}  // namespace criu
