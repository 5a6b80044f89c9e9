// SPDX-License-Identifier: GPL-2.0-only
// A core file: the notes, and each area of memory as a segment.
#pragma once

#include <string>

#include "contents.hpp"

namespace coredump {

// How much of an area goes into the core file. Code comes from its file again, but for the page with the headers, by
// which debuggers know the file; what cannot be read holds nothing.
std::uint64_t size_in_core(const crit::pb::vma_entry& area, const crit::Pages& pages);

// Writes DIRECTORY/core.PID, with holes where memory is zero. Nothing is left there when that fails.
void write_core(const crit::Checkpoint& checkpoint, const crit::pb::pstree_entry& task, Contents& contents,
                const std::string& directory);

}  // namespace coredump
