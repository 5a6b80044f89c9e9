// SPDX-License-Identifier: GPL-2.0-only
// --pidns: a restore into a pid namespace of its own, where no pid is taken.
#pragma once

#include <sys/types.h>

#include <functional>

namespace cli {

// `restore` is done by the init of a new pid namespace, with mounts of its own for the sake of its /proc, and returns
// the pid of the tree's root there; what it throws is for `report`, whose result is then returned. That init looks
// after all that live there, and ends with the root, and all others with it. `detached`: this returns when the tree
// runs; otherwise when the root has ended.
int in_own_pids(bool detached, const std::function<pid_t()>& restore, const std::function<int()>& report);

}  // namespace cli
