// SPDX-License-Identifier: LGPL-2.1-only
// What is in a file system of the tree's own: the format keeps it as a compressed tar archive, as GNU tar makes it.
// libarchive is loaded by the first use of it, since hardly any checkpoint needs it.
#pragma once

#include <string>

#include "base/fd.hpp"

namespace criu::namespaces::tarball {

// Loads the library. Where others' files are in sight, it must not be looked for among them.
void load();
// All that is below the directory, on its file system; numeric owners, holes, extended attributes, links and devices
// are kept. Sockets are left out: who has them open brings them back.
void write(int directory, int file, const std::string& what);
// Puts it back there. An archive comes from anywhere: what would lead out of the directory is an Error.
void extract(int file, int directory, const std::string& what);

}  // namespace criu::namespaces::tarball
