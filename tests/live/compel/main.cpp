// SPDX-License-Identifier: GPL-2.0-only
#define CATCH_CONFIG_RUNNER
#include <signal.h>
#include <sys/prctl.h>

#include <catch2/catch.hpp>

int main(int argc, char** argv) {
  // What victims leave behind comes to us, and goes with us.
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  return Catch::Session().run(argc, argv);
}
