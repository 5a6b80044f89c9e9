// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/restore.hpp"
#include "restore_context.hpp"

namespace criu::memory {

void restore_shared_objects(RestoreContext&) {}

}  // namespace criu::memory
