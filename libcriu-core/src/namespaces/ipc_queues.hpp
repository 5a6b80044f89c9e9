// SPDX-License-Identifier: LGPL-2.1-only
// System V message queues and semaphore sets of an IPC namespace.
#pragma once

#include <cstdint>

#include "dump_context.hpp"

namespace criu {
struct RestoreContext;
}

namespace criu::namespaces {

// All of the namespace that this process is in, which is the tree's own.
void save_message_queues(DumpContext&, std::uint32_t ns_id);
void save_semaphores(DumpContext&, std::uint32_t ns_id);

void restore_message_queues(const RestoreContext&, std::uint32_t ns_id);
void restore_semaphores(const RestoreContext&, std::uint32_t ns_id);

}  // namespace criu::namespaces
