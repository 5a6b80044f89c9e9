// SPDX-License-Identifier: LGPL-2.1-only
// What is mounted where a dump or a restore was started, for --external mnt[]: mounts of the tree that are there as
// well come from there.
#pragma once

#include <optional>
#include <string>

#include "base/fd.hpp"
#include "kernel/mounts.hpp"

namespace criu::namespaces {

class OuterMounts {
 public:
  // While this process is there; the answers are good anywhere.
  OuterMounts();

  // The path there of what a mount of the tree shows; nullopt: there is none, or something hides it.
  std::optional<std::string> find(const kernel::Mount&) const;
  // Whether a mount there is in this peer group.
  bool has_group(int group) const;

 private:
  kernel::Mounts mounts_;
  base::Fd root_;
};

// The root of the mount that a path of this process leads to. Throws base::Error.
base::Fd open_mount_of(const std::string& path);

}  // namespace criu::namespaces
