// SPDX-License-Identifier: LGPL-2.1-only
// Files with a path: regular files, directories, devices, O_PATH references.
#pragma once

#include "files/kind.hpp"

namespace criu::files {

extern const Kind regular_kind;

// Opens the file of a REG or MEMFD entry for a mapping, a working directory or an executable: with these flags instead
// of the recorded ones. The file is checked to be the one that was dumped.
base::Fd open_path(const RestoreContext&, std::uint32_t id, int flags, const std::string& referrer);

// The root of the mount namespace that the file of an entry is in, for its path; AT_FDCWD: that of this process.
int root_of(const RestoreContext&, const images::reg_file_entry&);

// Fills a REG entry (its id and owner are there already) from a description, or from a mere reference whose info is
// empty. A file whose name is gone is saved with it.
void save_path(Saver&, const Description&, images::file_entry&);

}  // namespace criu::files
