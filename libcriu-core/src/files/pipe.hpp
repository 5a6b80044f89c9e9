// SPDX-License-Identifier: LGPL-2.1-only
// Pipes: their two ends, further openings of them, and what waits unread inside.
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind pipe_kind;

}  // namespace criu::files
