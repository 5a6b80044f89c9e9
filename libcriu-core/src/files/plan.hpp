// SPDX-License-Identifier: LGPL-2.1-only
// Who makes which open file, and how the others get it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "files/kind.hpp"

namespace criu {

struct Checkpoint;

namespace files {

// Where a description can be fetched from, in memory shared by all tasks.
struct Slot {
  std::int32_t pid;
  std::int32_t fd;
};

struct Group {
  const Kind* kind;
  const TaskImage* maker;
  std::vector<const images::file_entry*> entries;
  std::vector<std::uint32_t> slots;
};

// Each description is made once, by the first task of the tree that has it; the others take it from there with
// pidfd_getfd, so that nothing has to be sent and nobody has to wait for anybody in particular.
class Plan {
 public:
  // Checks that every descriptor refers to a known file, and gives each group its maker.
  explicit Plan(const Checkpoint& checkpoint);
  Plan() = default;

  // The slots live in shared memory of slot_count() entries.
  std::size_t slot_count() const { return slot_count_; }
  void use(Slot* slots) { slots_ = slots; }

  // The stages, inside each task. After `make` and a barrier, `collect` puts every descriptor at its number.
  void make(RestoreContext&, const TaskImage&);
  void collect(RestoreContext&, const TaskImage&);
  void connect(RestoreContext&, const TaskImage&);
  // In the master: finishes what must see nothing of the restore, when all tasks stand still.
  void finish(RestoreContext&);
  // A descriptor of a file that this task may not have; from `collect` on.
  base::Fd fetch(const RestoreContext&, std::uint32_t file_id, const std::string& what) const;

 private:
  void add(const Checkpoint&, const TaskImage&, const images::file_entry&);
  void add_in_flight(const Checkpoint&);
  const TaskImage& maker_of(const Checkpoint&, const Kind&, const images::file_entry&, const TaskImage& first);
  std::uint32_t slot_of(const images::fdinfo_entry&) const;
  static base::Fd fetch_from(const RestoreContext&, Slot, const std::string& what);
  base::Fd fetch_slot(const RestoreContext&, std::uint32_t slot, const std::string& what) const;

  std::vector<Group> groups_;
  std::unordered_map<pid_t, const TaskImage*> tasks_;  // by pid, once somebody asked
  std::map<std::pair<const Kind*, std::uint64_t>, std::size_t> group_by_key_;
  std::map<std::pair<int, std::uint32_t>, std::uint32_t> slot_by_id_;
  std::unordered_map<std::uint32_t, std::uint32_t> slot_by_number_;              // the same, of whatever type
  std::vector<std::pair<const images::file_entry*, const TaskImage*>> made_by_;  // by slot
  std::size_t slot_count_ = 0;
  Slot* slots_ = nullptr;
  std::vector<base::Fd> made_;   // by slot, in the task that made it
  std::vector<Slot> installed_;  // by slot: a number that some task has it by in the end; not of what is in flight
};

}  // namespace files
}  // namespace criu
