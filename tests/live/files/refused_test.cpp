// SPDX-License-Identifier: GPL-2.0-only
// What cannot be saved is named, all of it at once.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "scene.hpp"

using scene::Scene;

TEST_CASE("all obstacles are told, each with its descriptor and kind") {
  const scene::TempDir dir;
  Scene scene({{[&] {
                  MUST(::open("/proc/self/ns/uts", O_RDONLY) == 0);
                  MUST(::open("/proc/self/ns/ipc", O_RDONLY) == 1);
                  MUST(::inotify_init1(0) == 2);
                  MUST(::syscall(SYS_pidfd_open, ::getpid(), 0) == 3);
                  MUST(::open("/proc/self/ns/net", O_RDONLY) == 4);
                  MUST(::open("/dev/ptmx", O_WRONLY | O_NOCTTY) == 5);
                  MUST(::open(dir.path("lock").c_str(), O_RDWR | O_CREAT, 0644) == 6);
                  MUST(::flock(6, LOCK_EX) == 0);
                  MUST(::dup(0) == 7);
                  MUST(::open("/dev/null", O_RDONLY) == 8);
                },
                [] {}}});
  auto texts = scene.dump();
  const char* const wanted[] = {"a UTS namespace",     "an IPC namespace", "an inotify descriptor", "a pidfd",
                                "a network namespace", "a pty's master",   "--file-locks"};
  REQUIRE(texts.size() == std::size(wanted));
  for (std::size_t i = 0; i < texts.size(); ++i) {
    CHECK_THAT(texts[i], Catch::Contains("fd " + std::to_string(i) + " of task " + std::to_string(scene.pids()[0])));
    CHECK_THAT(texts[i], Catch::Contains(wanted[i]));
  }
  CHECK_THAT(texts.back(), Catch::Contains(dir.path("lock")));
  scene.options.file_locks = true;
  texts = scene.dump();
  REQUIRE(texts.size() == std::size(wanted));
  CHECK_THAT(texts.back(), Catch::Contains("--file-locks is not supported"));
}
