// SPDX-License-Identifier: GPL-2.0-only
// What is checkpointed when it is measured: processes of one kind of load each.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>

namespace bench {

enum class Load {
  random,       // amount MiB of memory that no page of equals another
  zero,         // amount MiB of memory, touched, full of zeros
  untouched,    // amount MiB of memory that nobody wrote to
  threads,      // amount threads
  processes,    // amount processes
  mappings,     // amount mappings
  connections,  // amount TCP connections with both ends, in as few processes as can hold them
};

// Starts a victim and returns when it is set up and asleep.
pid_t start_victim(Load load, std::size_t amount);

// What the program is when it is started as a victim.
int victim_main(const std::string& load, std::size_t amount);

}  // namespace bench
