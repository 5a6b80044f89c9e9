// SPDX-License-Identifier: LGPL-2.1-only
#pragma once

#include <sys/types.h>

#include "options.hpp"

namespace criu {

// Restores the checkpoint in the image directory. Returns the root's pid once the tree runs; on an Error nothing of it
// is left.
pid_t restore(const Options& options);

}  // namespace criu
