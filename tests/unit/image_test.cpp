// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <pstree.pb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "base/error.hpp"
#include "image/directory.hpp"

namespace image = criu::image;

namespace {

struct Scratch {
  std::string path = "/tmp/criu-unit-XXXXXX";
  Scratch() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Scratch() { std::filesystem::remove_all(path); }
};

criu::images::pstree_entry entry(unsigned pid) {
  criu::images::pstree_entry e;
  e.set_pid(pid);
  e.set_ppid(0);
  e.set_pgid(pid);
  e.set_sid(pid);
  e.add_threads(pid);
  return e;
}

}  // namespace

TEST_CASE("records come back as they were written, with raw bytes between them") {
  Scratch scratch;
  image::Directory dir(scratch.path);
  auto writer = dir.create(image::type::pstree);
  writer.write(entry(7));
  const std::vector<std::byte> payload(100000, std::byte{0x5a});
  writer.raw(payload);
  writer.write(entry(8));
  writer.finish();

  auto reader = dir.require(image::type::pstree);
  criu::images::pstree_entry e;
  REQUIRE(reader.next(e));
  CHECK(e.pid() == 7);
  CHECK(reader.raw(payload.size()) == payload);
  REQUIRE(reader.next(e));
  CHECK(e.pid() == 8);
  CHECK_FALSE(reader.next(e));
}

TEST_CASE("an image starts with the two magics of format 1.1") {
  Scratch scratch;
  image::Directory dir(scratch.path);
  dir.put(image::type::pstree, 0, entry(7));
  std::ifstream file(scratch.path + "/pstree.img", std::ios::binary);
  std::string head(8, '\0');
  file.read(head.data(), 8);
  CHECK(head == std::string("\x19\x43\x56\x54\x30\x30\x27\x50"));
}

TEST_CASE("an image without records is no file, unless it is asked for") {
  Scratch scratch;
  image::Directory dir(scratch.path);
  dir.create(image::type::seccomp).finish();
  CHECK_FALSE(dir.open(image::type::seccomp));
  CHECK_THROWS_AS(dir.require(image::type::seccomp), base::Error);
}

TEST_CASE("a truncated or foreign image is an error that names the file") {
  Scratch scratch;
  image::Directory dir(scratch.path);
  dir.put(image::type::pstree, 0, entry(7));
  const auto path = scratch.path + "/pstree.img";
  const auto full = std::filesystem::file_size(path);
  criu::images::pstree_entry e;
  for (std::uintmax_t size = 0; size < full; ++size) {
    std::filesystem::resize_file(path, full);
    dir.put(image::type::pstree, 0, entry(7));
    std::filesystem::resize_file(path, size);
    INFO("cut to " << size);
    if (size == 8) {
      CHECK_FALSE(dir.require(image::type::pstree).next(e));  // the magics and no record
    } else {
      CHECK_THROWS_WITH(dir.require(image::type::pstree).next(e), Catch::Contains("pstree.img"));
    }
  }
  dir.put(image::type::pstree, 0, entry(7));
  std::filesystem::rename(path, scratch.path + "/seccomp.img");
  CHECK_THROWS_WITH(dir.require(image::type::seccomp), Catch::Contains("foreign"));
}
