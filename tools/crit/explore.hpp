// SPDX-License-Identifier: GPL-2.0-only
// `crit x`: the tasks of a checkpoint, their descriptors, areas and saved pages, as lines for people and scripts.
#pragma once

#include <string>
#include <string_view>

#include "checkpoint.hpp"

namespace crit {

// ps, fds, mems or rss; false: no such view.
bool explore(const Checkpoint& checkpoint, std::string_view what, Output& to);

}  // namespace crit
