// SPDX-License-Identifier: LGPL-2.1-only
// Anonymous files in memory: memfd_create, and shared anonymous memory that is open or mapped.
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind memfd_kind;

}  // namespace criu::files
