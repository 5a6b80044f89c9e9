// SPDX-License-Identifier: LGPL-2.1-only
// Whether this kernel, or a given tree on it, allows a checkpoint.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "options.hpp"

namespace criu {

using Say = std::function<void(const std::string& line)>;

// The verdict of `check` in all its forms; what it says goes to `say`.
bool check(const Options& options, const Say& say);

// Everything in the tree of options.tree that cannot be dumped, a line each; no task is stopped for it.
std::vector<std::string> obstacles(const Options& options);

}  // namespace criu
