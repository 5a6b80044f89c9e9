// SPDX-License-Identifier: LGPL-2.1-only
// Files with a path: regular files, directories, devices, O_PATH references.
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind regular_kind;

// Opens the path of a REG entry for a mapping, a working directory or an executable: with these flags instead of the
// recorded ones. The file is checked to be the one that was dumped.
base::Fd open_path(const RestoreContext&, std::uint32_t id, int flags, const std::string& referrer);

}  // namespace criu::files
