// SPDX-License-Identifier: GPL-2.0-only
// The stage that one test plays on: a process of its own below which everything of the test lives and dies.
#pragma once

#include <string>
#include <vector>

#include "live.hpp"

namespace live {

enum class Setting {
  dry,        // no checkpoint at all
  host,       // where the harness runs
  pidns,      // in a pid namespace of its own, with its own /proc
  container,  // the tree alone is in namespaces of its own, below an init; the programs of this suite are outside
  userns,     // the same in a user namespace, which owns the others
};

constexpr bool is_container(Setting setting) { return setting == Setting::container || setting == Setting::userns; }

struct Config {
  std::string criu;      // criu-cli
  std::string scratch;   // a directory for this run
  std::string programs;  // tests/live/programs
  Setting setting = Setting::dry;
  int rounds = 1;
  bool keep = false;  // keep the directories of failed tests
};

struct Outcome {
  std::vector<std::string> failures;
  std::string skipped;  // why, if it was
};

// Plays one test from start to end; leaves no process and no mount behind.
Outcome play(const Test& test, const Config& config);

}  // namespace live
