// SPDX-License-Identifier: LGPL-2.1-only
// Timers with a descriptor.
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind timerfd_kind;

}  // namespace criu::files
