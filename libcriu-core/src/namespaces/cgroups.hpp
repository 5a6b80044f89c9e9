// SPDX-License-Identifier: LGPL-2.1-only
// The control groups of a tree: which group each of its threads is in, and what these groups and those below are like.
// Groups are named as the dumping program sees them; with a control group namespace of the tree's own, a part of each
// name is what the tree does not see.
#pragma once

#include <cgroup.pb.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/fd.hpp"
#include "image/directory.hpp"
#include "kernel/cgroups.hpp"
#include "kernel/procfs.hpp"
#include "namespaces/cgroup_props.hpp"
#include "namespaces/home.hpp"
#include "options.hpp"
#include "task/frozen.hpp"

namespace criu::namespaces {

// What --cgroup-root says of a hierarchy; null: nothing. An Error if it says two things.
const std::string* cgroup_root_for(const Options&, const std::string& controllers);

class Cgroups {
 public:
  // Before any namespace of the tree is entered. The set of groups that this process is in is the first.
  Cgroups(const Options&, const Home&, pid_t root);

  // Finds out where each thread of the frozen tree is. Whoever calls may be in the tree's namespaces.
  void survey(const task::FrozenTree&);
  std::uint32_t set_of(pid_t tid) const;
  // What there is to say of groups, if anybody is elsewhere than this process. `frozen`: groups, by inode, that are
  // frozen by their own state although they are not at the moment.
  void save(const image::Directory&, const std::set<std::uint64_t>& frozen);

 private:
  struct Set {
    std::uint32_t id;
    std::vector<kernel::Membership> groups;
    std::vector<std::size_t> outside;  // of each, how much of its path is outside of the namespace
    bool whole = true;                 // what is below these groups is the tree's, too
    pid_t member = 0;                  // somebody who is in them
  };
  struct Top {
    std::string path;
    bool whole;
  };
  bool apart() const { return static_cast<bool>(theirs_); }
  bool wanted(const kernel::Membership&) const;
  std::vector<kernel::Membership> memberships(const std::string& text) const;
  std::uint32_t set_with(const std::string& text, pid_t tid);
  void look_from_inside();
  void measure_hidden(Set&) const;
  bool is_own(const kernel::Membership&) const;
  std::vector<Top> tops(const std::string& controllers) const;
  void save_hierarchy(const std::string& controllers, const std::set<std::uint64_t>& frozen,
                      images::cg_controller_entry&) const;

  const Options& options_;
  CgroupProps props_;
  base::Fd yard_, ours_, theirs_;  // the namespaces, if there are two
  bool mixed_ = false;             // somebody in our groups has a parent or process that is not
  std::vector<Set> sets_;
  std::map<std::string, std::uint32_t> by_text_;
  std::unordered_map<pid_t, std::uint32_t> of_thread_;
};

}  // namespace criu::namespaces
