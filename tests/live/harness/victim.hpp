// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string>

#include "live.hpp"

namespace live {

// The main function of a process under test.
// The process beside it.
int run_outside(const Test& test, const std::string& scratch_directory);
// The init of a container: starts a program, reaps whoever is left to it, and ends as the program does.
int run_init(char** arguments);
int run_victim(const Test& test, const std::string& scratch_directory);

}  // namespace live
