// SPDX-License-Identifier: LGPL-2.1-only
// What the master and all tasks of one restore share. Forked tasks have a copy of everything but `shared`.
#pragma once

#include <vector>

#include "base/fd.hpp"
#include "files/objects.hpp"
#include "files/plan.hpp"
#include "image/directory.hpp"
#include "memory/areas.hpp"
#include "memory/shared.hpp"
#include "options.hpp"
#include "restorer/inherited.hpp"
#include "restorer/plan.hpp"
#include "task/checkpoint.hpp"

namespace criu {

namespace namespaces {
class RestoredCgroups;
class RestoredMounts;
class Users;
const Users& our_users();
}  // namespace namespaces

struct RestoreContext {
  const Options& options;
  image::Directory images;
  const Checkpoint& checkpoint;

  restorer::Shared* shared = nullptr;
  std::size_t shared_size = 0;  // of the whole shared mapping: Shared, then slots and regions
  // Descriptors from here up belong to the restore, those below to the restored tasks.
  int first_internal_fd = 0;
  // Every address that some task of the tree needs, so that what is parked beside is in nobody's way.
  std::vector<memory::Interval> needed_addresses;
  restorer::Inherited inherited{};
  files::Plan files;
  files::Objects objects;
  memory::SharedObjects shared_objects;
  namespaces::RestoredCgroups* cgroups = nullptr;
  const namespaces::RestoredMounts* mounts = nullptr;  // of a tree that has them for itself
  const namespaces::Users* users = &namespaces::our_users();

  // Moves a descriptor out of the way of the restored ones.
  base::Fd internal(base::Fd fd) const;
};

}  // namespace criu
