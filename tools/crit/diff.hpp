// SPDX-License-Identifier: GPL-2.0-only
// `crit diff`: what is different between two checkpoints.
#pragma once

#include "checkpoint.hpp"

namespace crit {

// Whether anything is.
bool diff(const Checkpoint& before, const Checkpoint& after, Output& to);

}  // namespace crit
