// SPDX-License-Identifier: GPL-2.0-only
// What cannot be saved is named, all of it at once.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "scene.hpp"

using scene::Scene;

TEST_CASE("all obstacles are told, each with its descriptor and kind") {
  const scene::TempDir dir;
  Scene scene({{[&] {
                  MUST(::syscall(SYS_userfaultfd, O_CLOEXEC) == 0);
                  MUST(::open("/dev/ptmx", O_WRONLY | O_NOCTTY) == 1);
                  MUST(::open(dir.path("lock").c_str(), O_RDWR | O_CREAT, 0644) == 2);
                  MUST(::flock(2, LOCK_EX) == 0);
                  MUST(::dup(0) == 3);
                  MUST(::open("/dev/null", O_RDONLY) == 4);
                },
                [] {}}});
  auto texts = scene.dump();
  const char* const wanted[] = {"a userfaultfd", "a pty's master", "--file-locks"};
  REQUIRE(texts.size() == std::size(wanted));
  for (std::size_t i = 0; i < texts.size(); ++i) {
    CHECK_THAT(texts[i], Catch::Contains("fd " + std::to_string(i) + " of task " + std::to_string(scene.pids()[0])));
    CHECK_THAT(texts[i], Catch::Contains(wanted[i]));
  }
  CHECK_THAT(texts.back(), Catch::Contains(dir.path("lock")));
  scene.options.file_locks = true;
  CHECK(scene.dump().size() == std::size(wanted) - 1);
}
