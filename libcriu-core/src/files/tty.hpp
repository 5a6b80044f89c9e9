// SPDX-License-Identifier: LGPL-2.1-only
// Terminals: both ends of ptys, /dev/tty, consoles.
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind tty_kind;

}  // namespace criu::files
