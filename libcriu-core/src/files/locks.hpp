// SPDX-License-Identifier: LGPL-2.1-only
// File locks and leases. POSIX locks belong to a process (to its table of descriptors), all others to the open file
// description; each is recorded with a task and a descriptor by which it is taken again.
#pragma once

#include <file-lock.pb.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "kernel/procfs_fd.hpp"

namespace criu {

struct DumpContext;
struct RestoreContext;
struct TaskImage;

namespace restorer {
class Builder;
}

namespace files {

class Saver;

// Whether the kernel shows a lock on this descriptor.
inline bool has_locks(const kernel::FdInfo& info) { return info.text.find("\nlock:") != std::string::npos; }

// By which a lock is seen.
struct Holder {
  pid_t pid;
  int fd;
};

class LockSaver {
 public:
  // The locks of one descriptor; `file_id` is of the description, `table` of the task's descriptors. Without
  // --file-locks an Error.
  void collect(const DumpContext&, Holder, std::uint32_t file_id, std::uint32_t table, const kernel::FdInfo&,
               const std::string& what);
  // Writes all that were collected.
  void save(Saver&) const;

 private:
  // What kind of lock, whose (a table's or nobody's in particular), on which description, from where.
  using Key = std::tuple<std::uint32_t, std::uint32_t, std::uint32_t, std::int64_t>;
  std::map<Key, images::file_lock_entry> locks_;
};

// Restore: all locks, by the task that takes them.
class Locks {
 public:
  Locks() = default;
  // Without --file-locks any lock is an Error.
  explicit Locks(const RestoreContext&);
  // The restorer takes them: to close a descriptor of a file is to lose the POSIX locks on it, so all that the restore
  // needed must be closed before.
  void plan(const TaskImage&, restorer::Builder&) const;
  // In the master, when all are taken: lets leases be broken that were being broken.
  void break_leases(const RestoreContext&) const;

 private:
  struct Lock {
    images::file_lock_entry entry;
    std::uint32_t file_flags;
  };
  std::map<pid_t, std::vector<Lock>> by_task_;
};

}  // namespace files
}  // namespace criu
