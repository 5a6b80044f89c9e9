// SPDX-License-Identifier: LGPL-2.1-only
// The files of a dump: each open file description once, and the paths that tasks refer to.
#pragma once

#include <cstdint>
#include <string>

#include "dump_context.hpp"
#include "kernel/procfs.hpp"

namespace criu::files {

struct MappingReference {
  std::uint32_t id;
  bool memfd;            // a MEMFD entry, else a REG entry
  std::uint32_t access;  // O_RDONLY, O_WRONLY, O_RDWR: how the mapping's file was opened
};

class Collector {
 public:
  explicit Collector(DumpContext& context) : context_(context) {}
  void collect_table(pid_t pid, std::uint32_t files_id);
  std::uint32_t reference(const procfs::Task& task, const char* link);
  MappingReference reference_mapping(pid_t pid, const procfs::Area& area);
  void finish();

 private:
  DumpContext& context_;
};

}  // namespace criu::files
