// SPDX-License-Identifier: LGPL-2.1-only
// The rings of asynchronous I/O (io_setup(2)). The address of a ring is the number of its context, and the kernel keeps
// its own count of where the ring ends; the rest lies in memory that the task may read and write.
#pragma once

#include <mm.pb.h>
#include <sys/types.h>

#include <map>
#include <vector>

#include "kernel/procfs.hpp"
#include "memory/areas.hpp"
#include "memory/pages.hpp"

namespace criu {
struct RestoreContext;
struct TaskImage;
}  // namespace criu

namespace criu::memory {

// ---- dump ----

bool is_aio_ring(const procfs::Area&);
// Adds the ring of an area to the image. What is no ring any more is an Error.
void save_aio_ring(const procfs::Task&, const procfs::Area&, images::mm_entry&);

// ---- restore ----

// The rings of one task, made beside its running code for the restorer to move home.
class AioRings {
 public:
  // What was in them.
  void read(const TaskImage&, const Pagemap& saved);
  // Inside the task, once it has made its children: they would inherit the memory without the context.
  void make(RestoreContext&, const TaskImage&);
  const Interval& find(const images::vma_entry& vma) const { return parked_.at(vma.start()); }
  const std::map<std::uint64_t, Interval>& parked() const { return parked_; }

 private:
  std::map<std::uint64_t, std::vector<std::byte>> saved_;  // by the start of the area
  std::map<std::uint64_t, Interval> parked_;               // the same
};

}  // namespace criu::memory
