// SPDX-License-Identifier: LGPL-2.1-only
// The settings (sysctls) of an IPC namespace.
#pragma once

#include <ipc-var.pb.h>

namespace criu::namespaces {

// Those of the namespace that this process is in.
images::ipc_var_entry read_variables();
// Before objects are made: limits that were higher. What was lower is for later, since objects made before it was
// lowered may be beyond it.
void raise_limits(const images::ipc_var_entry&);
// Once all objects are there: everything, but that segments go with their last attachment.
void write_variables(const images::ipc_var_entry&);
// And that, once all are attached.
void force_removal(const images::ipc_var_entry&);

// How many bytes a queue that is made now may hold.
std::uint32_t queue_limit();
void set_queue_limit(std::uint32_t bytes);

}  // namespace criu::namespaces
