// SPDX-License-Identifier: LGPL-2.1-only
// What all parts of one dump share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "image/directory.hpp"
#include "memory/sysv.hpp"
#include "options.hpp"
#include "worker.hpp"

namespace criu {

// A random UUID.
std::string new_run_id();

struct DumpContext {
  const Options& options;
  const image::Directory& images;
  // Only to find out what is in the way: contents are not copied, and nothing outside the image directory is touched.
  bool look_only = false;
  // The network namespace of the tree, as the images number it.
  std::uint32_t net_ns_id = 0;
  // Of this dump; names what outlives it.
  std::string run_id = new_run_id();
  // For what needs no ptrace.
  Worker worker;
  // Everything found to be in the way: told to the user at once, not one a run.
  std::vector<base::Error> obstacles;
  // Numbers of pages files: one for each address space or shared object.
  std::uint32_t last_pages_id = 0;
  std::uint32_t new_pages_id() { return ++last_pages_id; }

  // System V shared memory that tasks of the tree have attached.
  memory::SeenSegments segments;

  // Runs a step for one object; its Error is kept and the others get their turn.
  template <typename Step>
  void attempt(Step step) {
    try {
      step();
    } catch (const base::Error& error) {
      obstacles.push_back(error);
    }
  }
};

}  // namespace criu
