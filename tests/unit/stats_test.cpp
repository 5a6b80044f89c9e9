// SPDX-License-Identifier: GPL-2.0-only
#include "stats.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "image/directory.hpp"

using namespace criu;

TEST_CASE("the text of a dump's statistics") {
  images::dump_stats_entry stats;
  stats.set_freezing_time(1);
  stats.set_frozen_time(2);
  stats.set_memdump_time(3);
  stats.set_memwrite_time(4);
  stats.set_pages_scanned(255);
  stats.set_pages_written(16);
  const std::string head =
      "Displaying dump stats:\nFreezing time: 1 us\nFrozen time: 2 us\nMemory dump time: 3 us\nMemory write time: 4 "
      "us\n";
  const std::string tail =
      "Memory pages scanned: 255 (0xff)\nMemory pages skipped from parent: 0 (0x0)\n"
      "Memory pages written: 16 (0x10)\nLazy memory pages: 0 (0x0)\n";
  CHECK(describe(stats) == head + tail);
  stats.set_irmap_resolve(5);
  CHECK(describe(stats) == head + "IRMAP resolve time: 5 us\n" + tail);
}

TEST_CASE("the text of a restore's statistics") {
  images::restore_stats_entry stats;
  stats.set_restore_time(9);
  stats.set_forking_time(8);
  CHECK(describe(stats) ==
        "Displaying restore stats:\nPages compared: 0 (0x0)\nPages skipped COW: 0 (0x0)\nRestore time: 9 us\nForking "
        "time: 8 us\n");
  stats.set_pages_restored(10);
  CHECK(describe(stats).find("Pages restored: 10 (0xa)\nRestore time") != std::string::npos);
}

TEST_CASE("statistics are an image in the work directory, whole even when nobody counted") {
  std::string path = "/tmp/criu-unit-XXXXXX";
  REQUIRE(::mkdtemp(path.data()) != nullptr);
  Options options;
  options.work_dir = path;
  finish_stats(options, images::dump_stats_entry());
  finish_stats(options, images::restore_stats_entry());
  const image::Directory dir(path);
  const auto dump = dir.only<images::stats_entry>(image::type::stats_dump);
  CHECK((dump.has_dump() && !dump.has_restore()));
  CHECK(dump.dump().IsInitialized());
  const auto restore = dir.only<images::stats_entry>(image::type::stats_restore);
  CHECK((restore.has_restore() && !restore.has_dump()));
  std::filesystem::remove_all(path);
}
