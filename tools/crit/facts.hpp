// SPDX-License-Identifier: GPL-2.0-only
// What a person wants to know of a checkpoint, worked out from its images.
#pragma once

#include <stats.pb.h>

#include "checkpoint.hpp"

namespace crit {

struct AreaFacts {
  std::uint64_t start, end;
  std::uint64_t saved = 0;   // bytes of it that the checkpoint holds
  std::uint64_t parent = 0;  // of these, in an earlier snapshot
  std::string rights;        // "rw-"
  std::string kind;          // anonymous, heap, stack, file, shared, kernel
  std::string what;          // a path, or a name in brackets
  std::uint64_t size() const { return end - start; }
};

struct Holder {
  std::uint32_t pid;
  std::uint32_t fd;
};

struct DescriptorFacts {
  std::uint32_t fd;
  pb::fd_types type;
  std::uint32_t file;
  bool close_on_exec;
  std::string what;
  std::string peer;  // who is at the other end: "pipe[7]", for pipes and sockets; empty: nobody is known
};

struct TaskFacts {
  std::uint32_t pid, ppid;
  std::size_t depth = 0;
  std::string name, state, exe;
  std::vector<std::uint32_t> threads;
  std::vector<AreaFacts> areas;
  std::vector<DescriptorFacts> descriptors;
  std::uint64_t mapped = 0, saved = 0;
};

struct ImageFacts {
  std::string name, group;
  std::uint64_t size;
};

struct Facts {
  std::vector<TaskFacts> tasks;                          // depth first
  std::map<std::uint32_t, std::vector<Holder>> holders;  // by file id: who has this open
  std::map<std::string, std::vector<Holder>> ends;       // by pipe or socket: who has an end of it
  std::vector<ImageFacts> images;                        // the largest first
  std::optional<pb::dump_stats_entry> stats;
  std::uint64_t image_bytes = 0, mapped = 0, saved = 0;
  std::size_t threads = 0;
};

Facts facts_of(const Checkpoint& checkpoint);

// "1.5 MiB"
std::string long_size(std::uint64_t bytes);

}  // namespace crit
