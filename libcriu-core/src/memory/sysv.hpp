// SPDX-License-Identifier: LGPL-2.1-only
// Where tasks have System V shared memory attached. The segments themselves belong to the IPC namespace
// (namespaces/ipc_segments).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernel/procfs.hpp"
#include "memory/areas.hpp"

namespace criu {
struct RestoreContext;
struct TaskImage;
}  // namespace criu

namespace criu::memory {

// ---- dump ----

// Whether an area is of a segment. Its id is the inode number.
bool is_segment(const procfs::Area&);

// The segments that tasks of the tree have attached.
class SeenSegments {
 public:
  struct Seen {
    std::string file;         // in /proc, of one of its areas
    std::uint64_t areas = 0;  // each counts as an attachment, also parts of one
    std::uint64_t reach = 0;  // the end of the furthest part, in the segment
    std::string where;        // the first area, for messages
  };

  void add(pid_t pid, const procfs::Area&, std::string where);
  // By id.
  const std::map<std::uint32_t, Seen>& all() const { return all_; }

 private:
  std::map<std::uint32_t, Seen> all_;
};

// ---- restore ----

// The attachments of one task. They are made beside its running code, and the restorer moves them home: all parts of
// an attachment must come from one call, since shmdt(2) takes away what came together.
class Attachments {
 public:
  // Inside the task, once it has made its children: they would inherit them.
  void make(RestoreContext&, const TaskImage&);

  struct Part {
    Interval at;         // where it waits
    std::uint32_t prot;  // as attached
  };
  const Part& find(const images::vma_entry& vma) const { return parts_.at(vma.start()); }
  // All parts, with their addresses of now.
  std::vector<Interval> parked() const;

 private:
  void attach(RestoreContext&, const TaskImage&, const std::vector<const images::vma_entry*>&);

  std::map<std::uint64_t, Part> parts_;  // by the start of the area
};

}  // namespace criu::memory
