// SPDX-License-Identifier: LGPL-2.1-only
#pragma once

#include "options.hpp"

namespace criu {

// Saves the tree of options.tree into the image directory. On an Error the tree goes on as if nothing had happened, and
// the directory holds no inventory, so that it is no checkpoint.
void dump(const Options& options);

}  // namespace criu
