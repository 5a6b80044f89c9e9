// SPDX-License-Identifier: LGPL-2.1-only
// Files with a path: regular files, directories, devices, O_PATH references.
#pragma once

#include "files/kind.hpp"
#include "files/place.hpp"

namespace criu::files {

extern const Kind regular_kind;

// Opens the file of a REG or MEMFD entry for a mapping, a working directory or an executable: with these flags instead
// of the recorded ones. The file is checked to be the one that was dumped.
base::Fd open_path(const RestoreContext&, std::uint32_t id, int flags, const std::string& referrer);

// Where the file of an entry is found, whatever its path leads to here: another mount namespace may be meant, or what
// other mounts hide.
Place place_of(const RestoreContext&, const images::reg_file_entry&);

// Fills a REG entry (its id and owner are there already) from a description, or from a mere reference whose info is
// empty. A file whose name is gone is saved with it.
void save_path(Saver&, const Description&, images::file_entry&);

}  // namespace criu::files
