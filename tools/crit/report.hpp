// SPDX-License-Identifier: GPL-2.0-only
// `crit report`: a checkpoint as one HTML page, for a person who opens it in a browser. The page needs nothing but
// itself.
#pragma once

#include "checkpoint.hpp"

namespace crit {

void report(const Checkpoint& checkpoint, Output& to);

}  // namespace crit
