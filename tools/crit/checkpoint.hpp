// SPDX-License-Identifier: GPL-2.0-only
// A checkpoint as a whole: its tasks, files and memory, read through the classes of the schemas. Whatever is asked of
// it is read when it is asked for; images come from anywhere, so that every reference may lead nowhere.
#pragma once

#include <core.pb.h>
#include <fdinfo.pb.h>
#include <fs.pb.h>
#include <inventory.pb.h>
#include <memfd.pb.h>
#include <mm.pb.h>
#include <pstree.pb.h>
#include <remap-file-path.pb.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "codec.hpp"

namespace crit {

namespace pb = criu::images;

constexpr std::uint64_t page_size = 4096;

// Bits of vma_entry.status.
enum Area : std::uint32_t {
  regular = 1U << 0,
  stack = 1U << 1,
  vsyscall = 1U << 2,
  vdso = 1U << 3,
  heap = 1U << 5,
  file_private = 1U << 6,
  file_shared = 1U << 7,
  anon_shared = 1U << 8,
  anon_private = 1U << 9,
  sysv_segment = 1U << 10,
  socket_ring = 1U << 11,
  vvar = 1U << 12,
  memfd_area = 1U << 14,
  guard = 1U << 16
};

enum class TaskState : std::uint32_t { alive = 1, zombie = 2, stopped = 3 };

class Checkpoint {
 public:
  explicit Checkpoint(std::string directory);
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  bool has(const std::string& name) const;

  // All records of an image without raw bytes between them. No file: none.
  template <typename Message>
  std::vector<Message> all(const std::string& name) const {
    std::vector<Message> found;
    if (const auto source = open(name)) {
      for (Message record; read_record(*source, record); record.Clear()) {
        found.push_back(record);
      }
    }
    return found;
  }
  // The first record; no file, or none in it: nothing.
  template <typename Message>
  std::optional<Message> first(const std::string& name) const {
    Message record;
    const auto source = open(name);
    return source && read_record(*source, record) ? std::optional(std::move(record)) : std::nullopt;
  }
  template <typename Message>
  Message need(const std::string& name) const {
    auto record = first<Message>(name);
    return record ? *std::move(record) : missing<Message>(name);
  }

  // In the order of the image: parents before their children.
  const std::vector<pb::pstree_entry>& tree() const { return tree_; }
  // Each task, its children behind it.
  void depth_first(const std::function<void(const pb::pstree_entry& task, std::size_t depth)>& visit) const;

  pb::core_entry core(std::uint32_t tid) const { return need<pb::core_entry>("core-" + std::to_string(tid) + ".img"); }
  // Zombies have neither.
  std::optional<pb::mm_entry> mm(std::uint32_t pid) const;
  std::optional<pb::task_kobj_ids_entry> ids(std::uint32_t pid) const;
  // The thread ids of a task, the leader's first.
  static std::vector<std::uint32_t> threads(const pb::pstree_entry& task);

  const pb::file_entry* find_file(std::uint32_t id) const;
  const std::map<std::uint32_t, pb::file_entry>& files() const { return files_; }
  const pb::memfd_inode_entry* find_memfd(std::uint32_t inode_id) const;
  const pb::remap_file_path_entry* find_remap(std::uint32_t file_id) const;
  // The path of a regular file; nothing when the id leads nowhere.
  std::optional<std::string> path_of(std::uint32_t file_id) const;
  // As `crit x` calls a file.
  std::string describe(pb::fd_types type, std::uint32_t id) const;

 private:
  std::unique_ptr<Source> open(const std::string& name) const;
  template <typename Message>
  [[noreturn]] Message missing(const std::string& name) const {
    fail_missing(name);
  }
  [[noreturn]] void fail_missing(const std::string& name) const;
  void check_tree();

  std::string path_;
  std::vector<pb::pstree_entry> tree_;
  std::map<std::uint32_t, std::vector<const pb::pstree_entry*>> children_;  // by pid; of 0: the roots
  std::map<std::uint32_t, pb::file_entry> files_;
  std::map<std::uint32_t, pb::memfd_inode_entry> memfds_;
  std::map<std::uint32_t, pb::remap_file_path_entry> remaps_;
};

// Consecutive pages that were saved.
struct Run {
  std::uint64_t start, size;  // bytes
  int fd;                     // -1: nobody has them (left to a lazy-pages server)
  std::uint64_t offset;
  bool parent;  // they are in an earlier snapshot
  std::uint64_t end() const { return start + size; }
};

// The saved pages of an address space or of a shared object, with the parents they refer to.
class Pages {
 public:
  // "pagemap-7.img". No such file: no pages.
  static Pages read(const std::string& directory, const std::string& pagemap) { return read(directory, pagemap, 0); }

  const std::vector<Run>& runs() const { return runs_; }
  // Copies what was saved of [at, at + size) over the buffer, and leaves the rest of it alone.
  void copy(std::uint64_t at, std::uint64_t size, char* to) const;
  // The first run that ends behind the address.
  std::vector<Run>::const_iterator from(std::uint64_t at) const;
  // Whether anything of [at, at + size) was saved.
  bool any(std::uint64_t at, std::uint64_t size) const;
  const std::string& name() const { return name_; }
  // Of the pages file; 0: none.
  std::uint32_t pages_id() const { return pages_id_; }

 private:
  static Pages read(const std::string& directory, const std::string& pagemap, int depth);

  std::string name_;
  std::uint32_t pages_id_ = 0;
  std::vector<Run> runs_;
  std::vector<std::shared_ptr<base::Fd>> files_;
};

}  // namespace crit
