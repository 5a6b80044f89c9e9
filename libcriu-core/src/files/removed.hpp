// SPDX-License-Identifier: LGPL-2.1-only
// Open files whose name is gone, or is another file's by now. One without any name left travels in the image (a
// "ghost"); one that still has other names gets a new one beside its old place until it is restored.
#pragma once

#include <fdinfo.pb.h>
#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "files/place.hpp"

namespace criu {

struct RestoreContext;

namespace files {

class Saver;

// What is known of a file when its name is found to be gone.
struct Nameless {
  std::uint32_t id;  // of its REG entry
  int fd;            // our own descriptor
  const struct stat& stat;
  const Place place;        // where it was
  int mount;                // on this one
  const std::string& what;  // for messages
};

class Removed {
 public:
  void save_ghost(Saver&, const Nameless&);
  void save_link(Saver&, const Nameless&);
  // A file of /proc of a process that is gone. Recorded once for each process.
  void save_process(Saver&, std::uint32_t file_id, pid_t pid);
  // Whether the contents of this inode are saved as a ghost.
  bool has_ghost(dev_t dev, ino_t ino) const { return ghosts_.contains({dev, ino}); }
  // Takes the new names away again; not after keep().
  ~Removed();
  Removed() = default;
  Removed(const Removed&) = delete;
  Removed& operator=(const Removed&) = delete;
  void keep() { links_.clear(); }

 private:
  std::map<std::pair<dev_t, ino_t>, std::uint32_t> ghosts_;
  std::map<std::pair<dev_t, ino_t>, std::uint32_t> linked_;  // REG id of the new name
  std::vector<Place> links_;
  std::set<pid_t> processes_;
};

// Restore, in the master: makes all of them open again under the paths they had, without leaving a name behind.
class Remaps {
 public:
  Remaps() = default;
  explicit Remaps(const RestoreContext&);
  // A descriptor (O_PATH) to open the file of this REG id through; -1: it has its name.
  int find(std::uint32_t file_id) const;
  // The same by what it was at the dump: device (as the kernel keeps it) and inode.
  int find_inode(std::uint32_t dev, std::uint64_t ino) const;
  // Whether files of /proc tell of this process, which is gone.
  bool is_gone(pid_t pid) const { return processes_.contains(pid); }
  // Removes what the dump had linked. Only when the restore can no longer fail.
  void unlink_links() const;

 private:
  std::map<std::uint32_t, int> by_file_;
  std::multimap<std::uint64_t, std::pair<std::uint32_t, int>> by_inode_;  // ghosts: device and descriptor
  std::vector<base::Fd> fds_;
  std::vector<Place> links_;
  std::set<pid_t> processes_;
};

}  // namespace files
}  // namespace criu
