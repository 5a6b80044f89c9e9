// SPDX-License-Identifier: LGPL-2.1-only
// What a dump or restore cost: an image in the work directory, and a text for who asked. The messages of the format are
// the counters; whoever moves pages or freezes tasks counts in them. Times are microseconds.
#pragma once

#include <stats.pb.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "options.hpp"

namespace criu {

// Time since it was made.
class Stopwatch {
 public:
  std::uint32_t microseconds() const {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start_).count());
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Writes stats-dump or stats-restore, and prints the text with --display-stats. Counters nobody set are written as 0.
void finish_stats(const Options& options, images::dump_stats_entry stats);
void finish_stats(const Options& options, images::restore_stats_entry stats);

std::string describe(const images::dump_stats_entry& stats);
std::string describe(const images::restore_stats_entry& stats);

}  // namespace criu
