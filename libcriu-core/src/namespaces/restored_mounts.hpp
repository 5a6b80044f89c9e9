// SPDX-License-Identifier: LGPL-2.1-only
// Making the mounts of a tree again: in a mount namespace that this process has for itself already, and in further ones
// that tasks of the tree had for themselves. Tasks enter these at the very end; what is to be opened in them before is
// opened from their roots.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/fd.hpp"
#include "files/place.hpp"
#include "namespaces/mounts.hpp"
#include "restore_context.hpp"

namespace criu::namespaces {

class RestoredMounts {
 public:
  // Reads and checks them.
  RestoredMounts(const RestoreContext&, bool own_pids);
  // What comes from outside, as long as that is in sight: in a copy of the mounts that is this process's own.
  void take_outside();
  // The same in two steps for a tree with users of its own: the second one in a further copy, which is theirs.
  void gather_outside();
  void take_gathered();
  // Puts them in the place of those that are there. A /proc can be mounted only by who lives among the pids that it
  // shows: with a pid namespace of the tree's own those have to wait, and one of ours is there for so long. So do
  // terminals that are bound somewhere (/dev/console), until they are made.
  void make();
  bool has_late() const { return own_pids_ || !late_.empty(); }
  void make_late();

  // Where a file on this mount is found that had this path.
  files::Place find(int mnt_id, const std::string& path) const;
  // By the number that the images have for it; -1: that of the root.
  int namespace_of(std::uint32_t ns_id) const;

 private:
  struct Space {
    std::uint32_t ns_id;
    base::Fd ns;
  };
  struct Made {
    const images::mnt_entry* entry;
    std::size_t space;
    base::Fd fd;  // the root of the mount; empty: not made yet
  };
  struct Doomed {
    base::Fd above;
    std::string name;
    bool directory;
    ~Doomed();
  };
  Made* find(std::uint32_t id);
  Made& root_in(std::size_t space);
  void read(std::uint32_t ns_id);
  bool is_first_root(const Made& made) const { return made.space == 0 && is_root(*made.entry); }
  bool is_covered(const Made&, const std::string& path) const;
  base::Fd current_namespace() const;
  void stand_in(std::size_t space);
  void make_space(Made& root);
  void change_root(const Made& root);
  void note_late();
  void make_ahead(std::uint32_t fstype);
  void attach_passing_proc();
  void make_all(bool late);
  bool has_origin(const Made&);
  bool ready(const Made&);
  base::Fd deleted(const images::mnt_entry&, const images::mnt_entry& origin);
  base::Fd source_of(const Made&);
  base::Fd made_anew(const images::mnt_entry&) const;
  std::string external_path(const images::mnt_entry&) const;
  base::Fd external(const images::mnt_entry&) const;
  bool shares_outside(const images::mnt_entry&) const;
  bool hears_outside(const images::mnt_entry&) const;
  bool has_group(std::uint32_t group) const { return groups_.contains(group); }
  void open_outer_groups();
  void attach(Made&);
  void restore_sharing();
  void make_read_only();

  const RestoreContext& context_;
  bool own_pids_;
  base::Fd proc_;              // ours, to have descriptors of namespaces from
  base::Fd passing_proc_;      // the place of which the real one takes
  std::vector<Space> spaces_;  // the root's first
  std::size_t stands_in_ = 0;
  std::vector<images::mnt_entry> entries_;                 // of one namespace after the other
  std::vector<Made> mounts_;                               // of these, in their order
  std::unordered_map<std::uint32_t, std::size_t> places_;  // in both, by the ids
  Origins origins_;
  std::set<std::uint32_t> groups_;                                              // of peers
  std::multimap<std::pair<std::uint32_t, std::string>, std::uint32_t> points_;  // of mounts on a mount, by both ids
  std::map<std::uint32_t, base::Fd> outer_groups_;  // what a mount is to share with, by its id
  std::vector<std::unique_ptr<Doomed>> doomed_;     // what is deleted again once all is mounted
  std::set<std::uint32_t> late_, attached_;         // their ids
};

}  // namespace criu::namespaces
