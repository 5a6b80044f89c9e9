// SPDX-License-Identifier: LGPL-2.1-only
// Saving one task of a frozen tree.
#pragma once

#include <seccomp.pb.h>

#include <future>

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

  Collected(DumpContext& context, const namespaces::Home& home) : ids(home.ours()), files(context) {
    context.net_ns_id = ids.number_of(home.theirs().at("net"));
    context.namespaces = &ids.namespaces();
  }
};

// Everything but memory contents: what is in the way becomes an obstacle, so that all of it is found in one go.
struct SavedTask {
  std::future<std::vector<procfs::Area>> areas;  // if it has been looked at before
  images::mm_entry mm;
  memory::SavedPages pages;  // by the worker, when it has got to it
};
// The longest that /proc takes for a task: the worker, if there is one, reads it while another task is saved. To be
// called before anything is mapped into the task to ask it from inside.
void look_at_areas(DumpContext&, const FrozenTask&, SavedTask&);
void save_task(DumpContext&, FrozenTree&, std::size_t index, Collected&, SavedTask&);

// The process tree (pstree.img), of all tasks.
void save_tree(DumpContext&, const FrozenTree&);

}  // namespace criu::task
