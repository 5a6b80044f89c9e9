// SPDX-License-Identifier: LGPL-2.1-only
// Memory objects that tasks share or hold by descriptor: memfd files, shared anonymous memory, huge pages of both.
#pragma once

#include <memfd.pb.h>
#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/fd.hpp"
#include "image/stream.hpp"

namespace criu {

struct DumpContext;
struct RestoreContext;

namespace memory {

// What this process has mapped there, as a file. Empty, with errno.
base::Fd open_own_mapping(std::uint64_t start, std::uint64_t end, int mode);

// All objects of a checkpoint, made and filled by the master before the first task.
class SharedObjects {
 public:
  void restore(const RestoreContext&);

  struct Object {
    base::Fd fd;  // read-write
    std::uint32_t seals = 0;
  };
  // The object of a MEMFD entry, by its inode_id. What is not there is an Error that names the referrer.
  const Object& memfd(std::uint64_t inode_id, const std::string& referrer) const;
  // Shared anonymous memory without an entry, by shmid.
  const Object& anonymous(std::uint64_t shmid, const std::string& referrer) const;
  // Seals what was sealed: once everything is mapped, for some seals forbid to map.
  void seal() const;

 private:
  void restore_memfds(const RestoreContext&);
  void restore_anonymous(const RestoreContext&);

  std::map<std::uint64_t, Object> memfds_;     // by inode_id
  std::map<std::uint64_t, Object> anonymous_;  // by shmid
};

// Where the kernel keeps memfd files and shared anonymous memory: a mount of its own that nothing else is on.
dev_t shm_device();

// Brings an empty object of this size to its saved contents.
void fill_object(const RestoreContext&, int fd, std::uint64_t shmid, std::uint64_t size, const std::string& what);

// Whether a file is such an object, and which: by where its link in /proc points.
bool is_memory_object(const std::string& link, const struct stat& stat);

// Saves objects, each once.
class ObjectSaver {
 public:
  explicit ObjectSaver(DumpContext& dump);
  // The inode_id of the object behind `fd`; its record and contents are written when it is met for the first time.
  std::uint32_t save(int fd, const struct stat& stat, const std::string& link, const std::string& what);
  // The contents of a System V segment, under its own id. False when another object has that number in the images.
  bool save_segment(int fd, const struct stat& stat, std::uint32_t id, const std::string& what);
  void finish() { image_.finish(); }

 private:
  void save_contents(int fd, const struct stat& stat, std::uint32_t shmid, const std::string& what);

  DumpContext& dump_;
  image::Writer image_;
  std::map<std::pair<dev_t, ino_t>, std::uint32_t> ids_;
  std::set<std::uint32_t> shmids_;
};

}  // namespace memory
}  // namespace criu
