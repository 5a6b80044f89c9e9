// SPDX-License-Identifier: GPL-2.0-only
// Pipes and FIFOs with what is in them.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "harness/live.hpp"

using namespace live;

namespace {

std::string read_some(int fd) {
  std::array<char, 256> buffer{};
  const auto size = ::read(fd, buffer.data(), buffer.size());
  return size < 0 ? "nothing" : std::string(buffer.data(), static_cast<std::size_t>(size));
}

void put(int fd, const std::string& text) {
  REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

}  // namespace

LIVE_TEST("pipes: data, flags and size") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_NONBLOCK) == 0);
  REQUIRE(::fcntl(ends[1], F_SETPIPE_SZ, 1 << 18) == 1 << 18);
  put(ends[1], "in the pipe");
  checkpoint_here();
  CHECK_EQ(::fcntl(ends[0], F_GETPIPE_SZ), 1 << 18);
  CHECK_EQ(read_some(ends[0]), "in the pipe");
  CHECK_EQ(read_some(ends[0]), "nothing");
  CHECK_EQ(errno, EAGAIN);
  put(ends[1], "more");
  CHECK_EQ(read_some(ends[0]), "more");
}

LIVE_TEST("pipes: full to the brim") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_NONBLOCK) == 0);
  const std::string block(4096, 'x');
  std::size_t written = 0;
  for (ssize_t part = 0; (part = ::write(ends[1], block.data(), block.size())) > 0;) {
    written += static_cast<std::size_t>(part);
  }
  REQUIRE(written == 65536);
  checkpoint_here();
  std::size_t got = 0;
  std::array<char, 4096> buffer{};
  for (ssize_t part = 0; (part = ::read(ends[0], buffer.data(), buffer.size())) > 0;) {
    got += static_cast<std::size_t>(part);
  }
  CHECK_EQ(got, written);
}

LIVE_TEST("pipes: packets keep their bounds") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_DIRECT | O_NONBLOCK) == 0);
  checkpoint_here();
  put(ends[1], "one");
  put(ends[1], "two");
  CHECK((::fcntl(ends[1], F_GETFL) & O_DIRECT) != 0);
  CHECK_EQ(read_some(ends[0]), "one");
  CHECK_EQ(read_some(ends[0]), "two");
}

LIVE_TEST("pipes: ends in different tasks") {
  int down[2];
  int up[2];
  REQUIRE(::pipe(down) == 0 && ::pipe(up) == 0);
  Child child(
      [&] {
        ::close(down[1]);
        ::close(up[0]);
        for (std::string text; !(text = read_some(down[0])).empty();) {
          put(up[1], "echo " + text);
        }
      },
      [](pid_t pid) { await_syscall(pid, 0); });
  ::close(down[0]);
  ::close(up[1]);
  checkpoint_here();
  put(down[1], "hello");
  CHECK_EQ(read_some(up[0]), "echo hello");
  CHECK_EQ(::close(down[1]), 0);  // the last writer: the child reads the end
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(read_some(up[0]), "");
}

LIVE_TEST("pipes: an end that nobody holds any more") {
  int no_writer[2];
  int no_reader[2];
  REQUIRE(::pipe(no_writer) == 0 && ::pipe(no_reader) == 0);
  put(no_writer[1], "last words");
  ::close(no_writer[1]);
  ::close(no_reader[0]);
  ::signal(SIGPIPE, SIG_IGN);
  checkpoint_here();
  CHECK_EQ(read_some(no_writer[0]), "last words");
  CHECK_EQ(read_some(no_writer[0]), "");
  CHECK_EQ(::write(no_reader[1], "x", 1), -1);
  CHECK_EQ(errno, EPIPE);
}

LIVE_TEST("pipes: one end opened again through /proc") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const int again = ::open(("/proc/self/fd/" + std::to_string(ends[0])).c_str(), O_RDONLY | O_NONBLOCK);
  REQUIRE(again >= 0);
  put(ends[1], "x");
  checkpoint_here();
  CHECK_EQ(read_some(again), "x");
  CHECK_EQ(::fcntl(ends[0], F_GETFL) & O_NONBLOCK, 0);
  CHECK_EQ(::fcntl(again, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
}

LIVE_TEST("pipes: a FIFO with data") {
  REQUIRE(::mkfifo(scratch("fifo").c_str(), 0600) == 0);
  const int both = ::open(scratch("fifo").c_str(), O_RDWR);
  const int writer = ::open(scratch("fifo").c_str(), O_WRONLY);
  REQUIRE(both >= 0 && writer >= 0);
  put(writer, "in the fifo");
  checkpoint_here();
  CHECK_EQ(read_some(both), "in the fifo");
  put(writer, "more");
  CHECK_EQ(read_some(both), "more");
}

LIVE_TEST("pipes: a deleted FIFO") {
  REQUIRE(::mkfifo(scratch("gone").c_str(), 0600) == 0);
  const int both = ::open(scratch("gone").c_str(), O_RDWR);
  REQUIRE(both >= 0);
  REQUIRE(::unlink(scratch("gone").c_str()) == 0);
  put(both, "still here");
  checkpoint_here();
  CHECK_EQ(read_some(both), "still here");
}

LIVE_TEST("pipes: packets that wait keep their bounds") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_DIRECT | O_NONBLOCK) == 0);
  put(ends[1], "one");
  put(ends[1], "three");
  checkpoint_here();
  put(ends[1], "new");
  CHECK_EQ(read_some(ends[0]), "one");
  CHECK_EQ(read_some(ends[0]), "three");
  CHECK_EQ(read_some(ends[0]), "new");
}

LIVE_TEST("pipes: a FIFO between two tasks") {
  REQUIRE(::mkfifo(scratch("between").c_str(), 0600) == 0);
  Child child(
      [] {
        const int reader = ::open(scratch("between").c_str(), O_RDONLY);
        REQUIRE(reader >= 0);
        checkpoint_here();
        CHECK_EQ(read_some(reader), "across");
        CHECK_EQ(read_some(reader), "");
      },
      [](pid_t pid) { await_syscall(pid, SYS_openat); });
  const int writer = ::open(scratch("between").c_str(), O_WRONLY);
  REQUIRE(writer >= 0);
  await_syscall(child.pid(), SYS_rt_sigsuspend);
  put(writer, "across");
  REQUIRE(::close(writer) == 0);
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("pipes: a FIFO that somebody waits to open") {
  REQUIRE(::mkfifo(scratch("door").c_str(), 0600) == 0);
  Child child(
      [] {
        const int reader = ::open(scratch("door").c_str(), O_RDONLY);
        CHECK_EQ(read_some(reader), "come in");
      },
      [](pid_t pid) { await_syscall(pid, SYS_openat); });
  checkpoint_here();
  const int writer = ::open(scratch("door").c_str(), O_WRONLY);
  CHECK(writer >= 0);
  put(writer, "come in");
  ::close(writer);
  CHECK_EQ(child.join(), 0);
}
