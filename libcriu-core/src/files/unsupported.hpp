// SPDX-License-Identifier: LGPL-2.1-only
// Names for what no kind of the table recognises, so that a refusal says what is in the way.
#pragma once

#include <string>

#include "files/kind.hpp"

namespace criu::files {

std::string name_unsupported(const Description&);

}  // namespace criu::files
