// SPDX-License-Identifier: LGPL-2.1-only
// FIFOs: pipes with a name.
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind fifo_kind;

}  // namespace criu::files
