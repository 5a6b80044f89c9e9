// SPDX-License-Identifier: GPL-2.0-only
// The notes of a core file: what a debugger knows of a process beside its memory.
#pragma once

#include <string>

#include "checkpoint.hpp"

namespace coredump {

// All of a task, one behind the other. A task whose registers this program has no form for is an Error.
std::string notes_of(const crit::Checkpoint& checkpoint, const crit::pb::pstree_entry& task,
                     const crit::pb::mm_entry& mm, const crit::Pages& pages);

}  // namespace coredump
