// SPDX-License-Identifier: LGPL-2.1-only
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind fanotify_kind;

}  // namespace criu::files
