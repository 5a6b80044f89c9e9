// SPDX-License-Identifier: GPL-2.0-only
// Times: of this machine's own primitives, and of dumps and restores.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <vector>

#include "victims.hpp"

namespace bench {

// What this machine takes for the primitives, in seconds; the smallest of several runs.
struct Baseline {
  double write_gib;  // write() of 1 GiB from a warm buffer to the image directory's file system, one thread
  double read_gib;   // read() of the same into fresh memory
  double spawn;      // fork and exec of `true`
};
Baseline measure_baseline(const std::string& directory);

struct Result {
  double dump = 0, restore = 0;  // seconds from the start of the command to its end
  double disk_mib = 0;           // what the images take
  double dumper_mib = 0;         // the dumping program's largest resident set
};

// Dumps and restores a victim `times` times over and takes the smallest times. Throws base::Error when criu-cli fails.
Result measure(const std::string& criu, const std::string& directory, Load load, std::size_t amount, int times);
// How long a victim stands still that goes on afterwards, in seconds, from the statistics of the dump; the smallest of
// `times` dumps. One that ends with the dump need not be quick about it.
double measure_frozen(const std::string& criu, const std::string& directory, Load load, std::size_t amount, int times);

}  // namespace bench
