// SPDX-License-Identifier: LGPL-2.1-only
// The little of /proc that stopping and entering a task needs.
#pragma once

#include <sys/types.h>

#include <base/fd.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace compel::procfs {

struct Stat {
  char state = 0;
  pid_t ppid = 0;
  unsigned flags = 0;  // PF_...
  std::uint64_t start_time = 0;
  std::string name;

  bool dead() const { return state == 'Z' || state == 'X'; }
  // Threads of the kernel's own in a process: of io_uring (0x10), of vhost and the like (0x4000), and kernel threads.
  bool kernel_worker() const { return (flags & (0x10u | 0x4000u | 0x200000u)) != 0; }
};

// /proc/PID/task, kept open while a process is scanned again and again.
class TaskDirectory {
 public:
  explicit TaskDirectory(pid_t pid);
  explicit operator bool() const { return static_cast<bool>(fd_); }  // false when the process is gone
  std::vector<pid_t> threads() const;
  std::optional<Stat> stat(pid_t tid) const;
  std::uint64_t resident() const;  // pages; 0: nobody knows
  // Appends the children that thread `tid` has made. False when the kernel has no such file.
  bool children(pid_t tid, std::vector<pid_t>& out) const;

 private:
  base::Fd fd_;
};

std::optional<Stat> stat(pid_t pid);

// A line of /proc/PID/status, for example the 42 of "TracerPid:\t42". -1 when it is not there.
long status_number(pid_t pid, const char* key);

struct Area {
  std::uint64_t begin = 0, end = 0;
  bool read = false, write = false, execute = false, shared = false;
  bool file = false;  // there is an inode behind it
  std::string name;
};

std::vector<Area> areas(pid_t pid);
// That of the vDSO, found without looking at all others. Nothing: it is not where the task was told that it is, or the
// kernel does not tell of single areas (before Linux 6.11).
std::optional<Area> vdso(pid_t pid);

// "task 42 (sleep)" for messages; "thread 43 of task 42 (sleep)" when they differ.
std::string describe(pid_t pid, pid_t tid = 0);

}  // namespace compel::procfs
