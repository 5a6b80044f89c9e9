// SPDX-License-Identifier: LGPL-2.1-only
// A path, and the mount namespace in which it leads to a file: a tree may have several.
#pragma once

#include <fcntl.h>

#include <string>

namespace criu::files {

// For the system calls that take a directory and a path.
struct Place {
  int root = AT_FDCWD;  // of the namespace; AT_FDCWD: the path is to be taken as this process sees it
  std::string path;     // absolute

  const char* name() const { return root == AT_FDCWD ? path.c_str() : path.size() > 1 ? path.c_str() + 1 : "."; }
  Place with(std::string other) const { return {root, std::move(other)}; }
};

}  // namespace criu::files
