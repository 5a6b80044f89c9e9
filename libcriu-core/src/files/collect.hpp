// SPDX-License-Identifier: LGPL-2.1-only
// The files of a dump: each open file description once, and the paths that tasks refer to.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "files/saver.hpp"
#include "kernel/procfs.hpp"

namespace criu::files {

struct MappingReference {
  std::uint32_t id;
  bool memfd;            // a MEMFD entry, else a REG entry
  std::uint32_t access;  // O_RDONLY, O_WRONLY, O_RDWR: how the mapping's file was opened
};

// How the file of a shared mapping was opened.
std::uint32_t mapping_access(pid_t pid, const procfs::Area& area);

class Collector {
 public:
  explicit Collector(DumpContext& context) : context_(context), saver_(context) {}

  // The descriptors of a stopped task, into fdinfo-<files_id>; files that are met for the first time are saved. What
  // cannot be saved becomes an obstacle, one for each file.
  void collect_table(pid_t pid, std::uint32_t files_id);
  // The id of the REG (or MEMFD) entry for a link in /proc/PID: exe, cwd, root.
  std::uint32_t reference(const procfs::Task& task, const char* link);
  MappingReference reference_mapping(pid_t pid, const procfs::Area& area);

  Saver& saver() { return saver_; }
  // What needs to know all descriptors; then the images are complete.
  void finish();
  // The names that --link-remap made are to stay: the tree will need them. Else they go with the Collector.
  void keep_links() { saver_.removed().keep(); }
  // How connections are kept silent, if there are any.
  NetworkLockMethod lock_method() { return saver_.sockets().lock_method(context_); }
  // What looking for the paths of watched files took, in microseconds.
  std::uint64_t scan_time() { return saver_.inodes().scan_time(); }
  // The tables that iptables made for it.
  unsigned lock_tables() { return saver_.sockets().lock_tables(); }
  // Who sees to it that its connections end without a packet, and stay locked for the restore, when the tree ends.
  // nullptr: there is nothing to see to.
  sockets::Keepers* keepers() { return saver_.sockets().keepers(); }

 private:
  struct Late {
    const Kind* kind;
    Description description;
    images::file_entry entry;
  };
  struct Reference {
    std::uint32_t id;
    bool memfd;
  };
  using Inode = std::tuple<dev_t, ino_t, int>;  // and mount

  // The table of a task: its directories in /proc, and the task itself.
  struct Table {
    pid_t pid;
    std::uint32_t files_id;
    int fds, infos, pidfd;
  };
  void collect_descriptor(const Table& from, int fd, image::Writer& writer);
  images::fd_types save(Description&, std::uint32_t id);
  void save_in_flight();
  Reference refer(Description&);

  DumpContext& context_;
  Saver saver_;
  std::unordered_map<std::uint32_t, images::fd_types> types_;  // UND: an obstacle
  std::map<Inode, Reference> by_inode_;
  std::map<std::tuple<unsigned, unsigned, std::uint64_t, std::string>, Reference> by_area_;
  std::vector<Late> late_;
};

}  // namespace criu::files
