// SPDX-License-Identifier: GPL-2.0-only
#define CATCH_CONFIG_RUNNER
#include <sched.h>

#include <catch2/catch.hpp>
#include <cstdio>

int main(int argc, char** argv) {
  // Nothing here touches the machine's own network.
  if (::unshare(CLONE_NEWNET) != 0) {
    std::perror("no network namespaces here");
    return 77;  // meson: skipped
  }
  return Catch::Session().run(argc, argv);
}
