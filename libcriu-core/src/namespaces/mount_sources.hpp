// SPDX-License-Identifier: LGPL-2.1-only
// What has to be looked at of the mounts of a tree before the deputy of its dump has mounts of its own.
#pragma once

#include <fcntl.h>
#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "kernel/mounts.hpp"
#include "kernel/procfs.hpp"
#include "namespaces/outer_mounts.hpp"

namespace criu::namespaces {

class Users;

// A mount namespace of the tree that is not the root's.
struct MountSpace {
  std::string link;  // "mnt:[4026532254]"
  std::vector<kernel::Mount> mounts;
  base::Fd root;                  // O_PATH
  std::map<int, base::Fd> tmpfs;  // as in MountSources
};

struct MountSources {
  const Users* users = nullptr;
  std::map<int, base::Fd> tmpfs;  // their roots, by the id of the mount
  dev_t outer_devpts = 0;         // the instance of /dev/pts where the dump was started
  std::optional<OuterMounts> outer;
  std::string link;                   // of the root's mount namespace
  std::vector<kernel::Mount> mounts;  // of that
  std::vector<MountSpace> inner;

  // Looks at the mount namespace of a task, unless that is known already.
  void note(const procfs::Task&);
  // The root of the namespace that a mount is in, for paths in that; AT_FDCWD: the root's, where this process is.
  int root_of(int mount) const;
  // Whether other mounts hide the place of a file on that mount, which had this path before.
  bool is_covered(int mount, const std::string& path) const;

 private:
  const std::vector<kernel::Mount>& around(int mount) const;
};

// While this process is in the very mount namespace. They show all that is in the file systems, whatever is mounted
// over it.
std::map<int, base::Fd> open_tmpfs_roots(const std::vector<kernel::Mount>&, const Users*);

}  // namespace criu::namespaces
