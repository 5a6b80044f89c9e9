// SPDX-License-Identifier: GPL-2.0-only
// crit: looks into the images of a checkpoint.
#include <cstdio>
#include <exception>

#include "commands.hpp"

int main(int argc, char** argv) {
  try {
    return crit::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "crit: %s\n", error.what());
    return 1;
  }
}
