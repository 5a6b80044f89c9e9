// SPDX-License-Identifier: LGPL-2.1-only
// Epoll descriptors and what they watch.
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind epoll_kind;

}  // namespace criu::files
