// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string>

#include "live.hpp"

namespace live {

// The main function of a process under test.
// The process beside it.
int run_outside(const Test& test, const std::string& scratch_directory);
int run_victim(const Test& test, const std::string& scratch_directory);

}  // namespace live
