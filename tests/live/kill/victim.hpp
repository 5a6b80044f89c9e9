// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <string>

// Two processes and five threads that work and check what they do. Each SIGUSR1 is answered with DIRECTORY/report: "ok"
// when all of them got on since and nothing was ever wrong. The first report comes by itself.
int worker_main(const std::string& directory);
