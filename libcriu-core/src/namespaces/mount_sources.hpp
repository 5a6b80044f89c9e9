// SPDX-License-Identifier: LGPL-2.1-only
// What has to be looked at of the mounts of a tree before the deputy of its dump has mounts of its own.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>

#include "base/fd.hpp"
#include "kernel/procfs.hpp"
#include "namespaces/outer_mounts.hpp"

namespace criu::namespaces {

struct MountSources {
  std::map<int, base::Fd> tmpfs;  // their roots, by the id of the mount
  dev_t outer_devpts = 0;         // the instance of /dev/pts where the dump was started
  std::optional<OuterMounts> outer;
};

// While this process is in the very mount namespace. They show all that is in the file systems, whatever is mounted
// over it.
std::map<int, base::Fd> open_tmpfs_roots(const procfs::Task& root);

}  // namespace criu::namespaces
