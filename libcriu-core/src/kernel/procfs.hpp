// SPDX-License-Identifier: LGPL-2.1-only
// What /proc says of a task. The texts come from the kernel, but also from the task itself (its name, file names), so
// every parser takes what stands there as it is and none trusts a separator.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"

namespace criu::procfs {

// The directory /proc/PID (or /proc/PID/task/TID) of one task: what is read through it is of that very task, even if
// its pid is given to another meanwhile.
class Task {
 public:
  explicit Task(pid_t pid);
  Task(pid_t pid, pid_t tid);

  std::string read(const char* name) const;
  std::string link(const char* name) const;
  base::Fd open(const char* name, int flags) const;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
  base::Fd dir_;
};

// The whole of a file of /proc. An Error names it.
std::string read_file(int dir, const char* name, const std::string& what);

// /proc/PID/stat, the fields that matter (man 5 proc has their numbers).
struct Stat {
  std::string comm;
  char state = 0;
  pid_t ppid = 0, pgrp = 0, session = 0;
  std::uint32_t terminal = 0;  // the number of the controlling one, 0: none
  pid_t foreground = 0;        // its foreground process group
  std::uint32_t flags = 0;
  int nice = 0;
  std::uint64_t start_time = 0;
  std::uint64_t resident = 0;  // pages, about
  std::uint64_t start_code = 0, end_code = 0, start_stack = 0;
  unsigned rt_priority = 0, policy = 0;
  std::uint64_t start_data = 0, end_data = 0, start_brk = 0, arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
  int exit_code = 0;
  int exit_signal = 0;
};
Stat parse_stat(const std::string& text);
// Whether `task` is `root` or descends from it. A task that is gone does not.
bool is_within(pid_t task, pid_t root);

// /proc/PID/status
struct Status {
  std::uint32_t uid[4] = {}, gid[4] = {};  // real, effective, saved, filesystem
  std::vector<std::uint32_t> groups;
  std::uint64_t cap_inheritable = 0, cap_permitted = 0, cap_effective = 0, cap_bounding = 0, cap_ambient = 0;
  bool no_new_privs = false;
  int seccomp = 0;
  unsigned seccomp_filters = 0;
  std::uint32_t umask = 0;
  bool has_umask = false;
  pid_t tracer = 0;
  std::vector<pid_t> ns_pid;  // in each pid namespace, the outermost first
  std::vector<pid_t> ns_pgid, ns_sid;
  std::uint64_t signals_blocked = 0;
  std::uint64_t signals_pending = 0;  // for the thread or the process
  std::uint64_t locked = 0;           // VmLck, KiB
};
Status parse_status(const std::string& text);

// One area of /proc/PID/smaps.
struct Area {
  std::uint64_t start = 0, end = 0, offset = 0;
  bool readable = false, writable = false, executable = false, shared = false;
  unsigned dev_major = 0, dev_minor = 0;
  std::uint64_t inode = 0;
  std::string name;
  std::uint64_t page_size = 4096;
  std::uint64_t resident = 0;  // bytes
  unsigned protection_key = 0;
  bool mapped_by_others = false;  // some of its pages are
  std::string flags;              // VmFlags: two letters and a blank each

  bool has(const char (&flag)[3]) const;
};
std::vector<Area> parse_smaps(std::string_view text);

// /proc/PID/timers
struct Timer {
  int id = 0;
  int signo = 0;
  std::uint64_t value = 0;
  int notify = 0;  // SIGEV_*
  pid_t tid = 0;   // of SIGEV_THREAD_ID
  int clock = 0;
};
std::vector<Timer> parse_timers(std::string_view text);

// /proc/PID/limits has what prlimit refuses to tell without CAP_SYS_RESOURCE. By RLIMIT_* number.
struct Limit {
  std::uint64_t soft, hard;
};
std::vector<Limit> parse_limits(std::string_view text);

}  // namespace criu::procfs
