// SPDX-License-Identifier: LGPL-2.1-only
// Memory for pages on their way: a huge page if there is one, since hundreds of small ones cost more to get than what
// is then done with them.
#pragma once

#include "base/fd.hpp"

namespace criu::memory {

// At least `bytes`, page-aligned; in whole huge pages where it is worth one. Throws.
base::Mapping map_buffer(std::size_t bytes);

}  // namespace criu::memory
