// SPDX-License-Identifier: GPL-2.0-only
// Files with a path, and files that have lost it.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "files/regular.hpp"
#include "restore_context.hpp"
#include "scene.hpp"

using scene::Scene;

namespace {

std::string content(int fd, std::size_t size = 4096) {
  std::string text(size, '\0');
  const auto got = ::pread(fd, text.data(), text.size(), 0);
  MUST(got >= 0);
  text.resize(static_cast<std::size_t>(got));
  return text;
}

void put(int fd, const std::string& text) {
  MUST(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

void is_open(int fd, const std::string& path, int flags, int mode = 0644) {
  const int got = ::open(path.c_str(), flags, mode);
  MUST(got >= 0);
  MUST(::dup2(got, fd) == fd);
  if (got != fd) {
    ::close(got);
  }
}

}  // namespace

TEST_CASE("offset, append, shared descriptions, directories, O_PATH, devices, close-on-exec") {
  const scene::TempDir dir;
  Scene scene({{[&] {
                  is_open(3, dir.path("plain"), O_RDWR | O_CREAT);
                  put(3, "0123456789");
                  MUST(::lseek(3, 4, SEEK_SET) == 4);
                  MUST(::dup2(3, 20) == 20);
                  MUST(::dup3(3, 21, O_CLOEXEC) == 21);
                  is_open(4, dir.path("append"), O_WRONLY | O_CREAT | O_APPEND);
                  is_open(5, dir.path(), O_RDONLY | O_DIRECTORY);
                  is_open(6, dir.path("plain"), O_PATH);
                  MUST(::symlink("nowhere", dir.path("link").c_str()) == 0);
                  is_open(7, dir.path("link"), O_PATH | O_NOFOLLOW);
                  int fd = 8;
                  for (const char* device : {"null", "zero", "full", "random", "urandom"}) {
                    is_open(fd++, std::string("/dev/") + device, O_RDWR);
                  }
                  is_open(13, dir.path("plain"), O_RDONLY | O_NONBLOCK | O_NOATIME);
                  is_open(14, "/proc/version", O_RDONLY);
                  is_open(15, dir.path(), O_PATH);
                },
                [&] {
                  MUST(::lseek(20, 0, SEEK_CUR) == 4);
                  MUST(::lseek(3, 7, SEEK_SET) == 7);
                  MUST(::lseek(21, 0, SEEK_CUR) == 7);
                  MUST(content(3) == "0123456789");
                  put(4, "more");
                  MUST(::faccessat(5, "plain", F_OK, 0) == 0);
                  char text[16] = {};
                  MUST(::readlinkat(7, "", text, sizeof text) == 7);
                  MUST(::write(10, text, 1) < 0 && errno == ENOSPC);
                  MUST(::read(9, text, 8) == 8 && text[0] == 0);
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
  CHECK(dir.names() == std::vector<std::string>{"append", "link", "plain"});
}

TEST_CASE("descriptions shared by fork, and the owner of a descriptor") {
  const scene::TempDir dir;
  Scene scene({{[&] {
                  is_open(3, dir.path("file"), O_RDWR | O_CREAT);
                  put(3, "abc");
                  const f_owner_ex owner{F_OWNER_PID, 1};
                  MUST(::fcntl(3, F_SETOWN_EX, &owner) == 0);
                  MUST(::fcntl(3, F_SETSIG, 40) == 0);
                },
                [&] {
                  f_owner_ex owner{};
                  MUST(::fcntl(3, F_GETOWN_EX, &owner) == 0 && owner.type == F_OWNER_PID && owner.pid == 1);
                  MUST(::fcntl(3, F_GETSIG) == 40);
                  MUST(::lseek(3, 2, SEEK_SET) == 2);
                }},
               {[&] { MUST(::dup2(3, 9) == 9); }, [&] { MUST(::lseek(9, 0, SEEK_CUR) == 2); }}});
  CHECK(scene.dump().empty());
  scene.restore();
}

TEST_CASE("removed files travel in the image") {
  const scene::TempDir dir;
  Scene scene({{[&] {
                  is_open(3, dir.path("small"), O_RDWR | O_CREAT, 0640);
                  put(3, "ghost data");
                  MUST(::fchown(3, 12, 34) == 0);
                  is_open(4, dir.path("small"), O_RDONLY);
                  MUST(::unlink(dir.path("small").c_str()) == 0);
                  is_open(5, dir.path("large"), O_RDWR | O_CREAT);
                  MUST(::pwrite(5, "end", 3, 1 << 24) == 3 && ::pwrite(5, "begin", 5, 8192) == 5);
                  MUST(::ftruncate(5, (1 << 24) + 100000) == 0);
                  MUST(::unlink(dir.path("large").c_str()) == 0);
                  is_open(6, dir.path(), O_RDWR | O_TMPFILE);
                  put(6, "unnamed");
                  MUST(::mkdir(dir.path("sub").c_str(), 0711) == 0);
                  is_open(7, dir.path("sub"), O_RDONLY | O_DIRECTORY);
                  is_open(8, dir.path("sub/inner"), O_RDWR | O_CREAT);
                  put(8, "inner");
                  MUST(::unlink(dir.path("sub/inner").c_str()) == 0 && ::rmdir(dir.path("sub").c_str()) == 0);
                  MUST(::symlink("target", dir.path("link").c_str()) == 0);
                  is_open(9, dir.path("link"), O_PATH | O_NOFOLLOW);
                  MUST(::unlink(dir.path("link").c_str()) == 0);
                  MUST(::mkfifo(dir.path("fifo").c_str(), 0622) == 0);
                  is_open(10, dir.path("fifo"), O_RDWR);
                  put(10, "in the fifo");
                  MUST(::unlink(dir.path("fifo").c_str()) == 0);
                  MUST(::mknod(dir.path("null").c_str(), S_IFCHR | 0666, makedev(1, 3)) == 0);
                  is_open(11, dir.path("null"), O_RDWR);
                  MUST(::unlink(dir.path("null").c_str()) == 0);
                  is_open(12, dir.path("taken"), O_RDWR | O_CREAT);
                  put(12, "old");
                  MUST(::unlink(dir.path("taken").c_str()) == 0);
                  is_open(13, dir.path("taken"), O_RDWR | O_CREAT);
                  put(13, "new one");
                  is_open(14, dir.path("odd (deleted)"), O_RDWR | O_CREAT);
                  is_open(15, dir.path("odd (deleted)"), O_RDWR);
                },
                [&] {
                  struct stat st {};
                  MUST(content(3) == "ghost data" && content(4) == "ghost data");
                  MUST(::fstat(4, &st) == 0 && st.st_nlink == 0 && st.st_mode == (S_IFREG | 0640) && st.st_uid == 12 &&
                       st.st_gid == 34);
                  MUST(::pwrite(3, "G", 1, 0) == 1 && content(4) == "Ghost data");
                  MUST(::fstat(5, &st) == 0 && st.st_size == (1 << 24) + 100000 && st.st_blocks < 100);
                  char text[8] = {};
                  MUST(::pread(5, text, 3, 1 << 24) == 3 && std::strcmp(text, "end") == 0);
                  MUST(::pread(5, text, 5, 8192) == 5 && std::strcmp(text, "begin") == 0);
                  MUST(content(6) == "unnamed" && content(8) == "inner");
                  MUST(::fstat(7, &st) == 0 && st.st_mode == (S_IFDIR | 0711));
                  MUST(::readlinkat(9, "", text, sizeof text) == 6);
                  char fifo[16] = {};
                  MUST(::read(10, fifo, sizeof fifo) == 11 && std::strcmp(fifo, "in the fifo") == 0);
                  MUST(::write(11, "x", 1) == 1 && ::read(11, text, 1) == 0);
                  MUST(content(12) == "old" && content(13) == "new one");
                }}});
  CHECK(scene.dump().empty());
  scene.looks_different = {6, 9};  // O_TMPFILE and O_NOFOLLOW tell of how it was opened, which was by a name
  scene.restore();
  CHECK(dir.names() == std::vector<std::string>{"odd (deleted)", "taken"});
}

TEST_CASE("a removed file that is too large is refused with the option that helps") {
  const scene::TempDir dir;
  Scene scene({{[&] {
                  is_open(3, dir.path("big"), O_RDWR | O_CREAT);
                  put(3, std::string(65536, 'x'));
                  MUST(::unlink(dir.path("big").c_str()) == 0);
                },
                [] {}}});
  scene.options.ghost_limit = 4096;
  const auto texts = scene.dump();
  REQUIRE(texts.size() == 1);
  CHECK_THAT(texts[0], Catch::Contains("Can't dump ghost file " + dir.path("big") + " of 65536 size, increase limit"));
  CHECK_THAT(texts[0], Catch::Contains("--ghost-limit"));
}

TEST_CASE("a file with its name gone but others left") {
  const scene::TempDir dir;
  const auto open = [&] {
    is_open(3, dir.path("first"), O_RDWR | O_CREAT);
    put(3, "linked");
    MUST(::link(dir.path("first").c_str(), dir.path("second").c_str()) == 0);
    is_open(4, dir.path("first"), O_RDONLY);
    MUST(::unlink(dir.path("first").c_str()) == 0);
  };
  Scene scene({{open, [&] {
                  struct stat here {
                  }, there{};
                  MUST(::fstat(3, &here) == 0 && ::stat(dir.path("second").c_str(), &there) == 0 &&
                       here.st_ino == there.st_ino);
                  MUST(content(4) == "linked");
                }}});
  SECTION("refused without the option") {
    const auto texts = scene.dump();
    REQUIRE(texts.size() == 2);
    CHECK_THAT(texts[0], Catch::Contains("--link-remap"));
    CHECK(dir.names() == std::vector<std::string>{"second"});
  }
  SECTION("linked anew, and the link goes when it is not needed") {
    scene.options.link_remap = true;
    CHECK(scene.dump().empty());
    const auto names = dir.names();
    REQUIRE(names.size() == 2);
    CHECK(names[0].starts_with("link_remap."));
    scene.restored = [](const criu::RestoreContext& context) { context.objects.remaps.unlink_links(); };
    scene.restore();
    CHECK(dir.names() == std::vector<std::string>{"second"});
  }
  SECTION("the link goes when the dump comes to nothing") {
    scene.options.link_remap = true;
    scene.dump();
    CHECK(dir.names().size() == 2);
    scene.dump();  // ends the one before
    CHECK(dir.names().size() == 2);
  }
}

TEST_CASE("files that changed since the dump are found out") {
  const scene::TempDir dir;
  Scene scene({{[&] {
                  is_open(3, dir.path("file"), O_RDWR | O_CREAT);
                  put(3, "12345");
                },
                [] {}}});
  CHECK(scene.dump().empty());
  scene.prepared = [&](const criu::RestoreContext& context) {
    criu::files::Plan plan(context.checkpoint);
    auto& entry = context.checkpoint.files.begin()->second;
    CHECK_NOTHROW(criu::files::open_path(context, entry.id(), O_RDONLY, "test"));
    REQUIRE(::truncate(dir.path("file").c_str(), 4) == 0);
    CHECK_THROWS_WITH(criu::files::open_path(context, entry.id(), O_RDONLY, "test"),
                      Catch::Contains("has bad size 4 (expect 5)"));
    REQUIRE(::truncate(dir.path("file").c_str(), 5) == 0);
    REQUIRE(::chmod(dir.path("file").c_str(), 0600) == 0);
    CHECK_THROWS_WITH(criu::files::open_path(context, entry.id(), O_RDONLY, "test"),
                      Catch::Contains("bad mode") && Catch::Contains("--skip-file-rwx-check"));
    REQUIRE(::chmod(dir.path("file").c_str(), 0644) == 0);
  };
  scene.restore();
}
