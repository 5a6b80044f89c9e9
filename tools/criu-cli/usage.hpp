// SPDX-License-Identifier: GPL-2.0-only
#pragma once

namespace cli {

// How to call the program, to stdout: the few lines behind a mistake, or everything.
void print_short_usage();
void print_long_usage();

}  // namespace cli
