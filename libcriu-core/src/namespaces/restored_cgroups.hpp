// SPDX-License-Identifier: LGPL-2.1-only
// The control groups of a restored tree: made where they are missing, entered by each task at its birth and by threads
// when all exist, and given their limits when all are in. Nothing is mounted; the files that tasks need are opened
// before any namespace is entered, since the kernel asks what the one who opened them may do.
#pragma once

#include <cgroup.pb.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "namespaces/cgroup_remover.hpp"
#include "restore_context.hpp"

namespace criu::namespaces {

class RestoredCgroups {
 public:
  // To be destroyed when no task of a failed restore is left: it removes the groups that it has made.
  explicit RestoredCgroups(const RestoreContext& context) : context_(context) {}
  ~RestoredCgroups();
  RestoredCgroups(const RestoredCgroups&) = delete;
  RestoredCgroups& operator=(const RestoredCgroups&) = delete;

  // Finds or makes the groups, as far as can be before anybody is in them.
  void make();
  // The tree's control group namespace; none: it had none of its own, or one that hid nothing.
  base::Fd make_namespace() const;
  // The calling task, at its birth, goes where it was. `maker`: the task that has forked it; null: the master.
  void enter(const TaskImage& task, const TaskImage* maker) const;
  // Once all threads exist: those that are not where their process is.
  void place_threads() const;
  // What would have been in the way until here: limits.
  void set_properties() const;
  // The last thing of all, since nothing can be asked of the frozen.
  void freeze() const;
  // The restore can no longer fail.
  void keep();

 private:
  struct Hierarchy {
    std::string name;  // "" is version 2
    base::Fd root;
  };
  using Place = CgroupRemover::Place;
  struct Set {
    std::map<std::string, std::string> paths;            // by hierarchy
    std::map<std::string, std::string> namespace_roots;  // the same; all empty: nothing is hidden
    bool hides() const;
  };
  struct Late {
    Place group;
    images::cgroup_prop_entry property;
  };

  bool any() const { return !sets_.empty(); }
  std::uint32_t own_set() const { return context_.checkpoint.inventory.root_cg_set(); }
  std::uint32_t set_of(const TaskImage*) const;
  std::uint32_t set_of_thread(const TaskImage&, int thread) const;
  void open_hierarchies(const images::cgroup_entry&);
  void read_sets(const images::cgroup_entry&);
  void read_own_set();
  std::string moved(const images::cg_controller_entry&, const std::string& path, const std::string& hidden) const;
  void make_tops(const images::cgroup_entry&, const images::cg_controller_entry&);
  void make_group(const Place&, const images::cgroup_dir_entry&);
  const base::Fd& open_or_make(const Place&, const images::cgroup_dir_entry&, bool& fresh);
  base::Fd make_directory(const Place&, int above, const std::string& name);
  void set_up(const Place&, const images::cgroup_dir_entry&, bool fresh);
  void open_entrance(std::map<Place, base::Fd>& entrances, const Place&, const char* file);
  void write_to(const std::map<Place, base::Fd>& entrances, std::uint32_t from, std::uint32_t to, pid_t who,
                const std::string& name) const;
  void remove(const Place&) const;

  const RestoreContext& context_;
  base::Fd yard_;
  std::map<std::string, Hierarchy> hierarchies_;
  std::map<std::uint32_t, Set> sets_;
  std::map<Place, base::Fd> groups_;
  std::map<Place, base::Fd> processes_, threads_;  // entrances of groups
  std::vector<Late> late_;
  std::unique_ptr<CgroupRemover> remover_;  // none: nothing was made
};

}  // namespace criu::namespaces
