// SPDX-License-Identifier: LGPL-2.1-only
// Which pages of a task's address space have contents of their own: PAGEMAP_SCAN (6.7), or /proc/PID/pagemap entry by
// entry on older kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "base/fd.hpp"
#include "kernel/procfs.hpp"

namespace criu {

// Consecutive pages that are present or swapped out, and not the shared zero page. Regions may span several areas.
struct PageRegion {
  std::uint64_t start, end;
  bool file;   // page cache or shared memory, not anonymous
  bool guard;  // a guard page (6.13): no contents, access raises SIGSEGV
};

class PageScanner {
 public:
  explicit PageScanner(const procfs::Task& task);
  // All regions in [start, end), ascending. Markers without contents are left out, guard pages are reported.
  std::vector<PageRegion> scan(std::uint64_t start, std::uint64_t end) const;

 private:
  bool scan_fast(std::uint64_t start, std::uint64_t end, std::vector<PageRegion>& into) const;
  void scan_entries(std::uint64_t start, std::uint64_t end, std::vector<PageRegion>& into) const;

  base::Fd fd_;
};

}  // namespace criu
