// SPDX-License-Identifier: LGPL-2.1-only
// Making the mounts of a tree again, in a mount namespace that this process has for itself already.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "namespaces/mounts.hpp"
#include "restore_context.hpp"

namespace criu::namespaces {

class RestoredMounts {
 public:
  // Reads and checks them.
  RestoredMounts(const RestoreContext&, std::uint32_t ns_id, bool own_pids);
  // Puts them in the place of those that are there. A /proc can be mounted only by who lives among the pids that it
  // shows: with a pid namespace of the tree's own those have to wait, and one of ours is there for so long.
  void make();
  void make_late();

 private:
  struct Made {
    const images::mnt_entry* entry;
    base::Fd fd;  // the root of the mount; empty: not made yet
  };
  struct Doomed {
    base::Fd above;
    std::string name;
    bool directory;
    ~Doomed();
  };
  Made* find(std::uint32_t id);
  Made& find_root();
  void note_late();
  void make_root();
  void make_all(bool late);
  bool ready(const Made&);
  base::Fd deleted(const images::mnt_entry&, const images::mnt_entry& origin);
  base::Fd source_of(const Made&);
  base::Fd made_anew(const images::mnt_entry&) const;
  std::string external_path(const images::mnt_entry&) const;
  base::Fd external(const images::mnt_entry&) const;
  bool shares_outside(const images::mnt_entry&) const;
  bool hears_outside(const images::mnt_entry&) const;
  bool has_group(std::uint32_t group) const;
  void open_outer_groups();
  void attach(Made&);
  void restore_sharing();
  void make_read_only();

  const RestoreContext& context_;
  bool own_pids_;
  std::vector<images::mnt_entry> entries_;
  std::vector<Made> mounts_;
  std::map<std::uint32_t, base::Fd> outer_groups_;  // what a mount is to share with, by its id
  std::vector<std::unique_ptr<Doomed>> doomed_;     // what is deleted again once all is mounted
  std::set<std::uint32_t> late_, attached_;         // their ids
};

}  // namespace criu::namespaces
