// SPDX-License-Identifier: LGPL-2.1-only
// Which descriptors are the same open file: a property only the kernel knows, asked with kcmp.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "kernel/procfs_fd.hpp"

namespace criu::files {

// A descriptor that stands for an open file as long as its task is stopped.
struct Ref {
  pid_t pid;
  int fd;
};

class Registry {
 public:
  // The id of the open file behind a descriptor; `id` becomes it when the file was not met before.
  std::uint32_t identify(Ref ref, const kernel::FdInfo& info, std::uint32_t id);
  // The id of the file that an epoll descriptor watches (the nth under that number); 0: not met.
  std::uint32_t watched(Ref epoll, const kernel::EpollTarget& target, unsigned nth) const;
  // Whether a descriptor of the epoll's own task is that file.
  static bool is_watched(Ref epoll, const kernel::EpollTarget& target, unsigned nth);

  // Whether an open file with this inode can be written to.
  bool has_writer(std::uint64_t ino) const;

  // Descriptors by number of the table that `pid` uses.
  struct Table {
    std::map<int, std::uint32_t> by_fd;
    std::unordered_map<std::uint32_t, int> by_id;  // the lowest number of each
  };
  Table& table(pid_t pid) { return tables_[pid]; }
  const Table* find_table(pid_t pid) const;

 private:
  // The kernel sorts open files in an order of its own, which is the same for every question.
  struct Order {
    bool operator()(const Ref& a, const Ref& b) const;
  };
  using Tree = std::map<Ref, std::uint32_t, Order>;
  // What cannot change in the life of an open file tells most of them apart without asking.
  struct Key {
    std::uint64_t ino;
    int mnt_id;
    unsigned mode;
    std::uint64_t unique;                          // where the kind has a number of its own
    auto operator<=>(const Key&) const = default;  // NOLINT(modernize-use-nullptr): there is none
  };
  std::map<Key, Tree> trees_;
  std::unordered_map<pid_t, Table> tables_;
};

}  // namespace criu::files
