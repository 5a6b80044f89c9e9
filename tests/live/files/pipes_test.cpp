// SPDX-License-Identifier: GPL-2.0-only
// Pipes and FIFOs with what waits in them.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "scene.hpp"

using scene::Scene;

namespace {

void pipe_at(int reader, int writer, int flags = 0) {
  int ends[2];
  MUST(::pipe2(ends, flags) == 0);
  MUST(::dup2(ends[0], 100) == 100 && ::dup2(ends[1], 101) == 101);
  ::close(ends[0]);
  ::close(ends[1]);
  MUST(::dup2(100, reader) == reader && ::dup2(101, writer) == writer);
  ::close(100);
  ::close(101);
}

std::string take(int fd, std::size_t size = 1 << 20) {
  std::string text(size, '\0');
  const auto got = ::read(fd, text.data(), text.size());
  MUST(got >= 0);
  text.resize(static_cast<std::size_t>(got));
  return text;
}

void put(int fd, const std::string& text) {
  MUST(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

}  // namespace

TEST_CASE("a pipe keeps its data, size and flags, also over a second dump") {
  Scene scene({{[] {
                  pipe_at(3, 4);
                  put(4, "in the pipe");
                  MUST(::fcntl(3, F_SETFL, O_NONBLOCK) == 0);
                  pipe_at(5, 6);
                  MUST(::fcntl(5, F_SETPIPE_SZ, 1 << 20) == 1 << 20);
                  put(6, std::string(1 << 20, 'x'));
                  pipe_at(7, 8);
                  MUST(::fcntl(7, F_SETPIPE_SZ, 4096) == 4096);
                },
                [] {
                  MUST(take(3) == "in the pipe");
                  char byte = 0;
                  MUST(::read(3, &byte, 1) < 0 && errno == EAGAIN);
                  MUST(::fcntl(6, F_GETPIPE_SZ) == 1 << 20 && take(5) == std::string(1 << 20, 'x'));
                  MUST(::fcntl(8, F_GETPIPE_SZ) == 4096);
                  put(8, "again");
                  MUST(take(7) == "again");
                }}});
  CHECK(scene.dump().empty());
  CHECK(scene.dump().empty());  // looking took nothing out
  scene.restore();
}

TEST_CASE("the ends of a pipe in different processes; one end alone; reopened ends") {
  Scene scene({{[] {
                  pipe_at(3, 4);
                  put(4, "for the child");
                  pipe_at(5, 6);
                  ::close(5);
                  pipe_at(7, 8);
                  put(8, "last words");
                  ::close(8);
                  MUST(::open("/proc/self/fd/3", O_WRONLY | O_NONBLOCK) == 0);
                  MUST(::open("/proc/self/fd/3", O_RDWR) == 1);
                },
                [] {
                  put(0, ", and more");
                  put(4, ".");
                  MUST(take(7) == "last words" && take(7).empty());
                }},
               {[] { ::close(0), ::close(1), ::close(4), ::close(6), ::close(7); },
                [] {
                  std::string all;
                  while (all.size() < 24) {
                    all += take(3);
                  }
                  MUST(all == "for the child, and more.");
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
}

TEST_CASE("packets stay packets") {
  Scene scene({{[] {
                  pipe_at(3, 4, O_DIRECT | O_NONBLOCK);
                  put(4, "one");
                  put(4, "three");
                  put(4, std::string(4096, 'x'));
                },
                [] {
                  put(4, "new");
                  MUST(take(3) == "one" && take(3, 2) == "th" && take(3).size() == 4096 && take(3) == "new");
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
}

TEST_CASE("a FIFO by its path, with data") {
  const scene::TempDir dir;
  Scene scene({{[&] {
                  MUST(::mkfifo(dir.path("fifo").c_str(), 0644) == 0);
                  MUST(::open(dir.path("fifo").c_str(), O_RDWR) == 0);
                  MUST(::open(dir.path("fifo").c_str(), O_RDONLY | O_NONBLOCK) == 1);
                  MUST(::open(dir.path("fifo").c_str(), O_WRONLY | O_APPEND) == 2);
                  MUST(::open(dir.path("fifo").c_str(), O_PATH) == 3);
                  put(2, "in the fifo");
                },
                [] {
                  MUST(take(1) == "in the fifo");
                  put(0, "more");
                  MUST(take(1) == "more");
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
}
