// SPDX-License-Identifier: LGPL-2.1-only
// Open files whose name is gone, or is another file's by now. One without any name left travels in the image (a
// "ghost"); one that still has other names gets a new one beside its old place until it is restored.
#pragma once

#include <fdinfo.pb.h>
#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"

namespace criu {

struct RestoreContext;

namespace files {

class Saver;

// What is known of a file when its name is found to be gone.
struct Nameless {
  std::uint32_t id;  // of its REG entry
  int fd;            // our own descriptor
  const struct stat& stat;
  const std::string& path;  // where it was
  const std::string& what;  // for messages
};

class Removed {
 public:
  void save_ghost(Saver&, const Nameless&);
  void save_link(Saver&, const Nameless&);
  // Takes the new names away again; not after keep().
  // Whether the contents of this inode are saved as a ghost.
  bool has_ghost(dev_t dev, ino_t ino) const { return ghosts_.contains({dev, ino}); }
  ~Removed();
  Removed() = default;
  Removed(const Removed&) = delete;
  Removed& operator=(const Removed&) = delete;
  void keep() { links_.clear(); }

 private:
  std::map<std::pair<dev_t, ino_t>, std::uint32_t> ghosts_;
  std::map<std::pair<dev_t, ino_t>, std::uint32_t> linked_;  // REG id of the new name
  std::vector<std::string> links_;
};

// Restore, in the master: makes all of them open again under the paths they had, without leaving a name behind.
class Remaps {
 public:
  Remaps() = default;
  explicit Remaps(const RestoreContext&);
  // A descriptor (O_PATH) to open the file of this REG id through; -1: it has its name.
  int find(std::uint32_t file_id) const;
  // Removes what the dump had linked. Only when the restore can no longer fail.
  void unlink_links() const;

 private:
  std::map<std::uint32_t, int> by_file_;
  std::vector<base::Fd> fds_;
  // The same by what it was at the dump: device (as the kernel keeps it) and inode.
  int find_inode(std::uint32_t dev, std::uint64_t ino) const;
  std::vector<std::string> links_;
};

}  // namespace files
}  // namespace criu
  std::multimap<std::uint64_t, std::pair<std::uint32_t, int>> by_inode_;  // ghosts: device and descriptor
