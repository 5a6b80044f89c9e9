// SPDX-License-Identifier: LGPL-2.1-only
// Event counters.
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind eventfd_kind;

}  // namespace criu::files
