// SPDX-License-Identifier: LGPL-2.1-only
// The namespaces that a tree lives in, as they are to be dumped: from inside.
#pragma once

#include <map>
#include <string>

#include "base/fd.hpp"
#include "kernel/procfs.hpp"
#include "namespaces/mount_sources.hpp"
#include "namespaces/user.hpp"
#include "outside.hpp"

namespace criu::namespaces {

// What the links in /proc/PID/ns say, by their names ("net" → "net:[4026531840]").
using Links = std::map<std::string, std::string>;
Links links_of(const procfs::Task&);

// The child that `fork` makes is in that namespace, below ours.
pid_t fork_into(int pid_namespace, const std::function<pid_t()>& fork);
// Gives this process mounts of its own, as they are, but for a /proc of its pid namespace that is surely the kernel's.
void see_own_proc();

class Home {
 public:
  // An Error if the root of the tree is not the init of a pid namespace that it does not share with us, or has a user
  // namespace and shares others with us that matter to its users.
  explicit Home(pid_t root);

  // Those of this process.
  const Links& ours() const { return ours_; }
  const Links& theirs() const { return theirs_; }
  bool own_pids() const { return apart("pid"); }
  // Their network namespace, which this keeps in being; -1: it is ours.
  int network() const { return network_.get(); }
  // Of the root, in a pid namespace of its own: not to be awaited by who lives there.
  void kill_root() const;
  void await_end() const;
  bool own_mounts() const { return apart("mnt"); }
  const Users& users() const { return users_; }
  // In the deputy: what there is to know of the mounts.
  MountSources& mount_sources() const { return mount_sources_; }
  // The work is given the root's pid where it is done: in this process, or in a deputy that is in the tree's pid,
  // mount, network, cgroup and UTS namespaces. Where the tree's /proc is none, or not of its pids, or made to look
  // other than the kernel shows it, the deputy has a copy of the mounts for itself, with a true one.
  std::string visit(const std::function<std::string(pid_t root)>& work, const outside::Serve&) const;

 private:
  bool apart(const char* name) const { return ours_.at(name) != theirs_.at(name); }

  pid_t root_;
  Links ours_, theirs_;
  pid_t root_there_;
  mutable MountSources mount_sources_;
  Users users_;
  base::Fd network_;
  base::Fd pidfd_;  // of a root in a pid namespace of its own
};

}  // namespace criu::namespaces
