// SPDX-License-Identifier: GPL-2.0-only
// The command line: which command, with what, and how it went.
#pragma once

namespace crit {

// The exit status.
int run(int argc, char** argv);

}  // namespace crit
