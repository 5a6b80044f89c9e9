// SPDX-License-Identifier: LGPL-2.1-only
// Saving an address space: its areas as vma entries, its pages into a pages file.
#pragma once

#include <mm.pb.h>
#include <stats.pb.h>

#include <cstdint>
#include <vector>

#include "dump_context.hpp"
#include "kernel/procfs.hpp"

namespace criu::files {
class Collector;
}

namespace criu::memory {

// What the statistics of a dump say of memory.
struct PageStats {
  std::uint64_t scanned = 0, written = 0, lazy = 0, skipped_parent = 0;
  std::uint64_t collect_us = 0, write_us = 0;

  void fill(images::dump_stats_entry& stats) const;
};

// Fills mm.vmas (but for guard ranges, which need the page map). What cannot be saved becomes an obstacle.
void save_areas(DumpContext&, files::Collector&, const procfs::Task&, const std::vector<procfs::Area>&,
                images::mm_entry&);

// Writes pagemap-<number> and its pages, and adds guard ranges to mm. `stack_pointers`: one per thread.
void save_pages(DumpContext&, const procfs::Task&, std::uint64_t number,
                const std::vector<std::uint64_t>& stack_pointers, images::mm_entry&, PageStats&);

}  // namespace criu::memory
