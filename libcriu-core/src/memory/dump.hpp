// SPDX-License-Identifier: LGPL-2.1-only
// Saving an address space: its areas as vma entries, its pages into a pages file.
#pragma once

#include <mm.pb.h>
#include <stats.pb.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "dump_context.hpp"
#include "kernel/pagemap.hpp"
#include "kernel/procfs.hpp"

namespace criu::files {
class Collector;
}

namespace criu::memory {

// What the statistics of a dump say of memory.
struct PageStats {
  std::uint64_t scanned = 0, written = 0, lazy = 0, skipped_parent = 0;
  std::uint64_t collect_us = 0, write_us = 0;

  PageStats& operator+=(const PageStats&);
  void fill(images::dump_stats_entry& stats) const;
};

// Fills mm.vmas (but for guard ranges, which need the page map). What cannot be saved becomes an obstacle.
void save_areas(DumpContext&, files::Collector&, const procfs::Task&, const std::vector<procfs::Area>&,
                images::mm_entry&);

// What of a task's memory its pages are chosen by.
struct PagesOf {
  pid_t pid;
  std::uint64_t number;    // of the pagemap image
  std::uint32_t pages_id;  // of the pages file
  struct Area {
    std::uint64_t start, end;
    bool always;  // all its pages, whatever they are: of the vDSO, or a ring of asynchronous I/O
    bool directly, anonymous, lazy;
  };
  std::vector<Area> areas;
  std::vector<std::uint64_t> stack_pointers;  // one per thread
};
PagesOf pages_of(DumpContext&, pid_t, const std::vector<procfs::Area>&, const images::mm_entry&,
                 std::vector<std::uint64_t> stack_pointers);

struct SavedPages {
  std::vector<PageRegion> guards;  // for the mm image
  PageStats stats;
};
// Writes pagemap-<number> and its pages. For any thread; ends early when nobody wants it any more.
SavedPages save_pages(const image::Directory&, const PagesOf&, const std::function<bool()>& abandoned);
void add_guards(const SavedPages&, images::mm_entry&);

}  // namespace criu::memory
