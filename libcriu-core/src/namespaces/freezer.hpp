// SPDX-License-Identifier: LGPL-2.1-only
// A control group that is frozen so that its tasks stand still while they are seized one by one (--freeze-cgroup). Once
// all are, ptrace holds them and the group is thawed, since nothing can be asked of a frozen task from inside.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "base/fd.hpp"

namespace criu::namespaces {

class Freezer {
 public:
  // The directory of a group of version 2, or of the freezer of version 1; empty: there is none, and nothing is done.
  explicit Freezer(const std::string& path);
  // The group is as it was before, and is so, too, when this process is killed.
  ~Freezer();
  Freezer(const Freezer&) = delete;
  Freezer& operator=(const Freezer&) = delete;

  bool any() const { return static_cast<bool>(group_); }
  // Returns when everybody in it stands still. Not within the time (0: the usual ten seconds): an Error.
  void freeze(unsigned timeout_seconds);
  // Thaws it with all that is below. 0 or a negative errno.
  int let_go();
  // What had been frozen before is so again, and nothing else.
  void put_back() const;
  struct PutBack {
    const Freezer& freezer;
    explicit PutBack(const Freezer& of) : freezer(of) {}
    ~PutBack() {
      if (freezer.any()) {
        freezer.put_back();
      }
    }
    PutBack(const PutBack&) = delete;
    PutBack& operator=(const PutBack&) = delete;
  };
  // By inode: the groups that had been.
  const std::set<std::uint64_t>& frozen_before() const { return inodes_; }

 private:
  struct Group {
    base::Fd directory;
    std::string path;
  };
  bool is_frozen() const;
  int set(int group, bool frozen) const;
  void look_at(int group, const std::string& path);
  void check_above() const;
  void await_frozen(unsigned timeout_seconds) const;
  void keep_watch();

  std::string path_;
  base::Fd group_;
  std::uint64_t inode_ = 0;
  bool v2_ = false;
  std::vector<Group> frozen_;  // by their own state, before
  std::set<std::uint64_t> inodes_;
  pid_t watcher_ = 0;
};

}  // namespace criu::namespaces
