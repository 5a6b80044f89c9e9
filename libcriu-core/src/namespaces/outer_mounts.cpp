// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/outer_mounts.hpp"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;
using kernel::Mount;

OuterMounts::OuterMounts() : root_(check(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "open", "/")) {}

std::optional<std::string> OuterMounts::find(const Mount& mount) const {
  for (const auto* outer : mounts_.of_device(mount.dev)) {
    if (outer->dev != mount.dev || !kernel::is_below(mount.root, outer->root)) {
      continue;
    }
    const auto below = mount.root.substr(outer->root == "/" ? 0 : outer->root.size());
    const auto path = (outer->point == "/" ? "" : outer->point) + (below == "/" ? "" : below);
    open_how how{};
    how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
    how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;
    const auto* below_root = path.empty() ? "." : path.c_str();
    const base::Fd fd(static_cast<int>(::syscall(SYS_openat2, root_.get(), below_root, &how, sizeof how)));
    if (fd && kernel::mount_id(fd.get()) == outer->id) {
      return path.empty() ? "/" : path;
    }
  }
  return std::nullopt;
}

bool OuterMounts::has_group(int group) const {
  return std::any_of(mounts_.all().begin(), mounts_.all().end(),
                     [group](const Mount& mount) { return mount.shared == group; });
}

base::Fd open_mount_of(const std::string& path) {
  const base::Fd fd(check(::open(path.c_str(), O_PATH | O_CLOEXEC), "open", path));
  const kernel::Mounts mounts;
  const auto* mount = mounts.by_id(kernel::mount_id(fd.get()));
  auto root = mount == nullptr ? base::Fd() : kernel::Mounts::open(*mount);
  if (!root) {
    throw Error("find the mount of", path, 0, "its root has to be in sight");
  }
  return root;
}

}  // namespace criu::namespaces
