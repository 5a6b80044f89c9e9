// SPDX-License-Identifier: LGPL-2.1-only
// The mounts of this process's namespace, and files found by their handles on them.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "kernel/fdinfo_marks.hpp"

namespace criu::kernel {

struct Mount {
  int id = -1, parent = -1;
  std::uint32_t dev = 0;  // of its filesystem, as the kernel keeps it
  std::string root;       // what of the filesystem is mounted
  std::string point;
  std::string options;         // of the mount, "rw,nosuid"
  int shared = 0, master = 0;  // peer groups that it is in, or hears of; 0: none
  bool unbindable = false;
  std::string type, source;
  std::string super_options;      // of the filesystem
  std::uint64_t autofs_pipe = 0;  // of an autofs: the inode of the pipe that its daemon reads
};
// Of what a descriptor leads to; -1: nobody knows.
int mount_id(int fd);
// Whether a path is that directory or leads into it.
bool is_below(std::string_view path, std::string_view directory);
std::vector<Mount> parse_mountinfo(std::string_view text);

class Mounts {
 public:
  Mounts();

  const Mount* by_id(int id) const;
  // Those that may show the filesystem of this device, the most complete first. What one filesystem calls its device
  // differs from source to source on btrfs.
  std::vector<const Mount*> of_device(std::uint32_t dev) const;
  const std::vector<Mount>& all() const { return mounts_; }

  // The root of a mount, as an O_PATH descriptor; empty when another mount hides it.
  // `root`: of the namespace that it is in, when that is not this process's.
  static base::Fd open(const Mount&, int root = -1);
  // The file of a handle, as O_PATH descriptors on one mount after the other until `accept` says so; empty: none.
  base::Fd open_handle(std::uint32_t dev, const FileHandle&, const std::function<bool(int fd)>& accept) const;

 private:
  std::vector<Mount> mounts_;
};

// Where an O_PATH descriptor leads; empty when it has no name there, or that leads elsewhere.
std::string path_of(int fd);

// Tells whether a file is what a mark is on, by letting the kernel describe it in the same words: no two of the numbers
// that it has for a device need to agree.
class MarkProbe {
 public:
  bool is(int fd, const WatchMark& mark);

 private:
  base::Fd inotify_;
};

}  // namespace criu::kernel
