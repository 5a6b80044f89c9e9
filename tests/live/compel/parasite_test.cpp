// SPDX-License-Identifier: GPL-2.0-only
// Single system calls and parasites: that they run, what they can do, and that nothing of them is left.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <compel/compel.hpp>
#include <thread>

#include "test_blob.h"
#include "victim.hpp"

using test::Board;
using test::Victim;

namespace {

// Waits until it may go on, with nothing but memory to look at.
int patient(Board& board) {
  board.ready++;
  while (board.released.load() == 0) {
    ::sched_yield();
  }
  return 5;
}

}  // namespace

TEST_CASE("a system call runs in the task and leaves nothing") {
  Victim victim(patient);
  victim.wait_ready();
  const std::string before = test::maps(victim.pid());
  {
    compel::Tree tree = compel::Tree::seize(victim.pid());
    compel::Task task = tree.root();
    CHECK(task.syscall(SYS_getpid) == victim.pid());
    CHECK(task.syscall(SYS_close, 12345) == -EBADF);
    const std::int64_t at = task.syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(at > 0);
    const char text[] = "written from outside";
    task.write(at, text, sizeof text);
    char back[sizeof text];
    task.read(at, back, sizeof back);
    CHECK(std::string(back) == text);
    CHECK(task.syscall(SYS_munmap, at, 4096) == 0);
  }
  CHECK(test::maps(victim.pid()) == before);
  victim.board().released = 1;
  CHECK(victim.join() == 5);
}

TEST_CASE("a parasite is called, logs, keeps its data and goes") {
  Victim victim(patient);
  victim.wait_ready();
  const std::string before = test::maps(victim.pid());
  compel::Tree tree = compel::Tree::seize(victim.pid());
  compel::Parasite parasite = tree.root().load(test_blob, 100);
  REQUIRE(parasite.data_size() == 4096);
  CHECK(parasite.call("ids", 16) == 7);
  CHECK(parasite.data_as<long>(16) == victim.pid());
  CHECK(parasite.data_as<long>(24) == victim.pid());
  CHECK(parasite.call("count") == 43);
  CHECK(parasite.call("count") == 46);
  CHECK(parasite.log() == "counter 41, yes, 2 0000beef z\ncounter 42, yes, 4 0000beef z\n");
  CHECK(parasite.log().empty());
  CHECK_THROWS_WITH(parasite.call("nothing"), Catch::Contains("nothing"));
  CHECK_THROWS_AS(parasite.call("count", 5000), compel::Error);
  CHECK_THROWS_WITH(tree.root().load(test_blob, 0), Catch::Contains("already"));
  SECTION("resident") {
    parasite.start();
    for (int i = 0; i < 1000; ++i) {
      REQUIRE(parasite.call("count") == 49 + 3 * i);
    }
    CHECK_THROWS_AS(tree.root().syscall(SYS_getpid), compel::Error);
    parasite.post("ids", 0);
    CHECK_THROWS_AS(parasite.post("ids", 0), compel::Error);
    CHECK(parasite.wait() == 7);
    parasite.stop();
    CHECK(tree.root().syscall(SYS_getpid) == victim.pid());
  }
  SECTION("the log ring tells what it lost") {
    parasite.call("chatter");
    const std::string log = parasite.log();
    CHECK(log.starts_with('['));
    CHECK(log.find("line 1999 of the long talk\n") != std::string::npos);
  }
  SECTION("a crash is reported, and the task goes on") {
    CHECK_THROWS_WITH(parasite.call("crash"), Catch::Contains("Segmentation fault"));
    CHECK(parasite.call("count") == 49);
    parasite.start();
    CHECK_THROWS_WITH(parasite.call("crash"), Catch::Contains("Segmentation fault"));
    CHECK(parasite.call("count") == 52);
  }
  tree.release();
  CHECK_THROWS_AS(parasite.call("count"), compel::Error);
  CHECK(test::maps(victim.pid()) == before);
  victim.board().released = 1;
  CHECK(victim.join() == 5);
}

TEST_CASE("descriptors go both ways") {
  Victim victim(patient);
  victim.wait_ready();
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  compel::Tree tree = compel::Tree::seize(victim.pid());
  compel::Task task = tree.root();
  compel::Parasite parasite = task.load(test_blob, 4096);
  const std::size_t before = [&] {
    std::size_t open = 0;
    for (int fd = 0; fd < 64; ++fd) {
      open += task.syscall(SYS_fcntl, fd, F_GETFD) >= 0;
    }
    return open;
  }();
  const int there = parasite.give_fd(ends[1]);
  REQUIRE(there >= 0);
  CHECK(task.syscall(SYS_fcntl, there, F_GETFD) == FD_CLOEXEC);
  parasite.data_as<long>() = there;
  CHECK(parasite.call("write_fd") == 5);
  char text[6] = {};
  CHECK(::read(ends[0], text, 5) == 5);
  CHECK(std::string(text) == "hello");
  const int back = task.take_fd(there);
  CHECK(::write(back, "again", 5) == 5);
  CHECK(::read(ends[0], text, 5) == 5);
  CHECK(std::string(text) == "again");
  CHECK(task.syscall(SYS_close, there) == 0);
  std::size_t after = 0;
  for (int fd = 0; fd < 64; ++fd) {
    after += task.syscall(SYS_fcntl, fd, F_GETFD) >= 0;
  }
  CHECK(after == before);
  CHECK_THROWS_AS(task.take_fd(4711), compel::Error);
  ::close(back);
  ::close(ends[0]);
  ::close(ends[1]);
  tree.release();
  victim.board().released = 1;
  CHECK(victim.join() == 5);
}

TEST_CASE("a command in every thread") {
  constexpr int count = 150;
  Victim victim([](Board& board) {
    std::vector<std::thread> threads;
    threads.reserve(count);
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([&board] { patient(board); });
    }
    board.ready++;
    for (std::thread& thread : threads) {
      thread.join();
    }
    return 6;
  });
  victim.wait_ready(count + 1);
  const std::string before = test::maps(victim.pid());
  compel::Tree tree = compel::Tree::freeze(victim.pid());
  compel::Task task = tree.root();
  const std::vector<pid_t> tids = task.tids();
  REQUIRE(tids.size() == count + 1);
  CHECK(tids[0] == victim.pid());
  compel::Parasite parasite = task.load(test_blob, 8 * tids.size());
  const bool resident = GENERATE(false, true);
  std::vector<pid_t> chosen = tids;
  if (resident) {
    parasite.start();
    CHECK_THROWS_AS(parasite.call_in_threads(tids, "double_it", 0, 8), compel::Error);
    chosen.erase(chosen.begin());
  }
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    parasite.data_as<long>(8 * i) = static_cast<long>(i + 1);
  }
  const std::vector<long> results = parasite.call_in_threads(chosen, "double_it", 0, 8);
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    CHECK(results[i] == chosen[i]);
    CHECK(parasite.data_as<long>(8 * i) == static_cast<long>(2 * (i + 1)));
  }
  CHECK_THROWS_WITH(parasite.call_in_threads({chosen[1], chosen[2]}, "crash"), Catch::Contains("Segmentation fault"));
  CHECK(task.syscall_in(chosen[3], SYS_gettid) == chosen[3]);
  parasite.unload();
  tree.release();
  CHECK(test::maps(victim.pid()) == before);
  victim.board().released = 1;
  CHECK(victim.join() == 6);
}
