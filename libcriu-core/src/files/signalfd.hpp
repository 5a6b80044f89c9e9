// SPDX-License-Identifier: LGPL-2.1-only
// Descriptors that read signals.
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind signalfd_kind;

}  // namespace criu::files
