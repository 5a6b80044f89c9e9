// SPDX-License-Identifier: LGPL-2.1-only
// Which pages of a task's address space have contents of their own: PAGEMAP_SCAN (6.7), or /proc/PID/pagemap entry by
// entry on older kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "base/fd.hpp"
#include "kernel/procfs.hpp"

namespace criu {

struct PageRange {
  std::uint64_t start, end;  // addresses, multiples of the page size
};

// Consecutive pages that are present or swapped out. Regions may span several areas. Entries do not tell the shared
// zero page from others, so an older kernel reports it too.
struct PageRegion {
  std::uint64_t start, end;
  bool file;   // page cache or shared memory, not anonymous
  bool guard;  // a guard page (6.13): no contents, access raises SIGSEGV
};

class PageScanner {
 public:
  enum class Method { best, entries };  // `entries` is what older kernels have

  explicit PageScanner(const procfs::Task& task, Method method = Method::best);
  // All regions in the ranges, ascending as these; there may be some between the ranges too. Markers without contents
  // are left out, guard pages are reported. The cost is that of the pages found by PAGEMAP_SCAN, but that of the size
  // of the ranges on older kernels.
  std::vector<PageRegion> scan(const std::vector<PageRange>& ranges) const;

 private:
  bool scan_fast(std::uint64_t start, std::uint64_t end, std::vector<PageRegion>& into) const;
  void scan_entries(std::uint64_t start, std::uint64_t end, std::vector<PageRegion>& into) const;

  base::Fd fd_;
  Method method_;
};

}  // namespace criu
