// SPDX-License-Identifier: LGPL-2.1-only
// Saving one task of a frozen tree.
#pragma once

#include <seccomp.pb.h>

#include "dump_context.hpp"
#include "files/collect.hpp"
#include "memory/dump.hpp"
#include "task/frozen.hpp"
#include "task/ids.hpp"

namespace criu::task {

// What all tasks of a dump are numbered in and write to.
struct Collected {
  Ids ids;
  files::Collector files;
  images::seccomp_entry seccomp;
  memory::PageStats pages;

  explicit Collected(DumpContext& context) : files(context) {}
};

// Everything but memory contents: what is in the way becomes an obstacle, so that all of it is found in one go.
struct SavedTask {
  images::mm_entry mm;
  std::vector<std::uint64_t> stack_pointers;
};
SavedTask save_task(DumpContext&, FrozenTree&, std::size_t index, Collected&);

// The process tree (pstree.img), of all tasks.
void save_tree(DumpContext&, const FrozenTree&);

}  // namespace criu::task
