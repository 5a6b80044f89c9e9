// SPDX-License-Identifier: LGPL-2.1-only
// The areas (VMAs) of an address space, and finding room between them.
#pragma once

#include <sys/mman.h>
#include <vma.pb.h>

#include <cstdint>
#include <set>
#include <vector>

#include "kernel/procfs.hpp"

namespace criu::memory {

// The bits of vma_entry.status.
enum Status : std::uint32_t {
  regular = 0x1,
  stack = 0x2,
  vsyscall = 0x4,
  vdso = 0x8,
  heap = 0x20,
  file_private = 0x40,
  file_shared = 0x80,
  anon_shared = 0x100,
  anon_private = 0x200,
  sysv_ipc = 0x400,
  socket = 0x800,
  vvar = 0x1000,
  aio_ring = 0x2000,
  memfd = 0x4000,
  shadow_stack = 0x8000,
  guard = 0x10000,
  uprobes = 0x20000,
  io_uring = 0x100000,  // ours: memory of an io_uring, whose file is in shmid
  ext_plugin = 0x08000000,
};

// Areas whose own pages belong to the task's pagemap, and which are filled before they are moved home.
inline bool is_private(const images::vma_entry& vma) {
  return (vma.status() & regular) != 0 && (vma.status() & (anon_private | file_private)) != 0 &&
         (vma.status() & (vdso | vvar | vsyscall)) == 0;
}

// The kernel gives such memory a protection key by its own doing.
inline bool is_execute_only(const images::vma_entry& vma) { return vma.prot() == PROT_EXEC; }

// Locked page by page as it is touched (MLOCK_ONFAULT, MCL_ONFAULT).
bool is_locked_on_fault(const procfs::Area& area);

struct Interval {
  std::uint64_t start, end;
};

// Ascending, with what touches or overlaps made one.
void merge(std::vector<Interval>& intervals);

// The end of the address space of a 64-bit task of this kernel.
std::uint64_t task_size();

// What this process has mapped now.
std::vector<Interval> own_mappings();

// A set of taken address ranges, in which free places are looked for.
class Space {
 public:
  void take(std::uint64_t start, std::uint64_t end) { taken_.push_back({start, end}); }
  void take(const std::vector<Interval>& ranges) { taken_.insert(taken_.end(), ranges.begin(), ranges.end()); }
  // A free range of this size, aligned; it is taken by that. No room is an Error.
  std::uint64_t find(std::uint64_t size, std::uint64_t alignment);
  // Finds it, and maps private memory there. Something may have been mapped since the ranges were taken: it is in the
  // way, and is then taken too.
  std::uint64_t map(std::uint64_t size, std::uint64_t alignment, int protection, int flags);
  // The same in the middle of the largest gap, for what is to stay: far from heaps and stacks that grow.
  std::uint64_t find_remote(std::uint64_t size, std::uint64_t alignment);

 private:
  std::vector<Interval> taken_;
};

}  // namespace criu::memory
