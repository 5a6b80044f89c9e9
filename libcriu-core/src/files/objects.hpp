// SPDX-License-Identifier: LGPL-2.1-only
// What restored files need besides their entries, read and made in the master before the first task.
#pragma once

#include "files/queues.hpp"
#include "files/removed.hpp"

namespace criu::files {

struct Objects {
  Queues pipe_queues;
  Queues fifo_queues;
  Remaps remaps;
};

// Reads the images of queues and removed files; what the tasks will open is made here.
void prepare(RestoreContext&);

}  // namespace criu::files
