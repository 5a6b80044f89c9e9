// SPDX-License-Identifier: GPL-2.0-only
// io_uring, by liburing and by raw system calls.
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "harness/live.hpp"

using namespace live;

namespace {

class Ring {
 public:
  explicit Ring(unsigned entries, unsigned flags = 0) {
    io_uring_params params{};
    params.flags = flags;
    const int result = ::io_uring_queue_init_params(entries, &ring_, &params);
    if (result == -EINVAL && flags != 0) {
      skip("this kernel has no rings with such flags");
    }
    REQUIRE(result == 0);
  }
  ~Ring() { ::io_uring_queue_exit(&ring_); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  io_uring* get() { return &ring_; }
  io_uring_sqe* next(std::uint64_t data) {
    auto* request = ::io_uring_get_sqe(&ring_);
    REQUIRE(request != nullptr);
    ::io_uring_sqe_set_data64(request, data);
    return request;
  }
  void submit(int count = 1) { REQUIRE(::io_uring_submit(&ring_) == count); }
  // The next completion: its data and result.
  std::pair<std::uint64_t, int> wait() {
    io_uring_cqe* completion = nullptr;
    int result = 0;
    // A wait that is interrupted says so, also by a checkpoint.
    do {
      result = ::io_uring_wait_cqe(&ring_, &completion);
    } while (result == -EINTR);
    if (result != 0) {
      return {0, result};
    }
    const std::pair<std::uint64_t, int> completed{::io_uring_cqe_get_data64(completion), completion->res};
    ::io_uring_cqe_seen(&ring_, completion);
    return completed;
  }
  bool has_completion() {
    io_uring_cqe* completion = nullptr;
    return ::io_uring_peek_cqe(&ring_, &completion) == 0;
  }

 private:
  io_uring ring_{};
};

using Completed = std::pair<std::uint64_t, int>;

void do_nothing(Ring& ring, int times) {
  for (int i = 0; i < times; ++i) {
    ::io_uring_prep_nop(ring.next(static_cast<std::uint64_t>(i)));
    ring.submit();
    REQUIRE(ring.wait() == Completed(i, 0));
  }
}

void idle(unsigned flags) {
  Ring ring(8, flags);
  do_nothing(ring, 21);
  checkpoint_here();
  for (int i = 0; i < 21; ++i) {
    ::io_uring_prep_nop(ring.next(std::uint64_t{100} + static_cast<std::uint64_t>(i)));
    CHECK_EQ(::io_uring_submit(ring.get()), 1);
    CHECK(ring.wait() == Completed(100 + i, 0));
  }
}

}  // namespace

LIVE_TEST("io_uring: an idle ring") { idle(0); }
LIVE_TEST("io_uring: an idle ring of wide entries and completions") { idle(IORING_SETUP_SQE128 | IORING_SETUP_CQE32); }
LIVE_TEST("io_uring: an idle ring of one thread") { idle(IORING_SETUP_SINGLE_ISSUER); }
LIVE_TEST("io_uring: an idle ring that works when asked to") {
  idle(IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
}

LIVE_TEST("io_uring: a ring that nobody has used yet, and one in a child") {
  Ring ring(4);
  Child child([&] {
    checkpoint_here();
    CHECK(!ring.has_completion());
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  do_nothing(ring, 9);
}

LIVE_TEST("io_uring: entries that wait to be submitted, and completions that wait to be seen") {
  Ring ring(4);
  do_nothing(ring, 3);
  for (std::uint64_t data = 50; data < 53; ++data) {
    ::io_uring_prep_nop(ring.next(data));
  }
  ring.submit(3);
  ::io_uring_prep_nop(ring.next(60));
  ::io_uring_prep_nop(ring.next(61));
  // Into the ring, but not to the kernel.
  const auto tail = ring.get()->sq.sqe_tail;
  __atomic_store_n(ring.get()->sq.ktail, tail, __ATOMIC_RELEASE);
  checkpoint_here();
  for (std::uint64_t data = 50; data < 53; ++data) {
    CHECK(ring.wait() == Completed(data, 0));
  }
  CHECK(!ring.has_completion());
  CHECK_EQ(::syscall(SYS_io_uring_enter, ring.get()->ring_fd, 2, 0, 0, nullptr, 0), 2);
  CHECK(ring.wait() == Completed(60, 0));
  CHECK(ring.wait() == Completed(61, 0));
}

LIVE_TEST("io_uring: completions that found no room") {
  Ring ring(4);  // room for eight
  for (int round = 0; round < 3; ++round) {
    for (std::uint64_t i = 0; i < 4; ++i) {
      ::io_uring_prep_nop(ring.next(static_cast<std::uint64_t>(round) * 4 + i));
    }
    ring.submit(4);
  }
  checkpoint_here();
  for (std::uint64_t data = 0; data < 12; ++data) {
    CHECK(ring.wait() == Completed(data, 0));
  }
  CHECK(!ring.has_completion());
}

// Which of its own mappings a registered buffer lies in is told with other words after a restore.
LIVE_TEST("io_uring: registered files and buffers", Options{.ignore = {"fd"}}) {
  Ring ring(8);
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  const int file = ::open(scratch("file").c_str(), O_RDWR | O_CREAT, 0600);
  REQUIRE(file >= 0 && ::write(file, "contents", 8) == 8);
  const int slots[4] = {file, -1, pair[0], -1};
  REQUIRE(::io_uring_register_files(ring.get(), slots, 4) == 0);
  static char buffer[2][4096];
  const iovec buffers[2] = {{buffer[0], sizeof buffer[0]}, {buffer[1], 100}};
  REQUIRE(::io_uring_register_buffers(ring.get(), buffers, 2) == 0);
  do_nothing(ring, 3);
  checkpoint_here();
  auto* request = ring.next(1);
  ::io_uring_prep_read_fixed(request, 0, buffer[1], 8, 0, 1);
  request->flags |= IOSQE_FIXED_FILE;
  CHECK_EQ(::io_uring_submit(ring.get()), 1);
  CHECK(ring.wait() == Completed(1, 8));
  CHECK(std::memcmp(buffer[1], "contents", 8) == 0);
  CHECK_EQ(::write(pair[1], "abc", 3), 3);
  request = ring.next(2);
  ::io_uring_prep_read(request, 2, buffer[0], 10, 0);
  request->flags |= IOSQE_FIXED_FILE;
  CHECK_EQ(::io_uring_submit(ring.get()), 1);
  CHECK(ring.wait() == Completed(2, 3));
}

LIVE_TEST("io_uring: a registered end of a pipe, of which the task has both, is refused",
          Options{.dump_fails = "2 open files of the task could be it"}) {
  Ring ring(4);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  REQUIRE(::io_uring_register_files(ring.get(), ends, 1) == 0);
  checkpoint_here();
  do_nothing(ring, 1);
}

LIVE_TEST("io_uring: a request that its ring does not show any more is refused",
          Options{.dump_fails = "requests are in flight that its memory does not show any more"}) {
  Ring ring(4);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  char byte = 0;
  ::io_uring_prep_read(ring.next(1000), ends[0], &byte, 1, 0);
  ring.submit();
  do_nothing(ring, 12);
  checkpoint_here();
  CHECK_EQ(::write(ends[1], "x", 1), 1);
  CHECK(ring.wait() == Completed(1000, 1));
  CHECK_EQ(byte, 'x');
}

LIVE_TEST("io_uring: a request that can neither be made again nor waited for is refused",
          Options{.dump_fails = "that cannot be made again, and that does not end"}) {
  Ring ring(4);
  int pair[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
  static char bytes[64];
  ::io_uring_prep_recv(ring.next(1), pair[0], bytes, 60, MSG_WAITALL);
  ring.submit();
  checkpoint_here();
  CHECK_EQ(::write(pair[1], bytes, 60), 60);
  CHECK(ring.wait() == Completed(1, 60));
}

LIVE_TEST("io_uring: what the kernel does not tell is refused: a registered eventfd",
          Options{.dump_fails = "an eventfd is registered with it"}) {
  Ring ring(4);
  const int event = ::eventfd(0, 0);
  REQUIRE(::io_uring_register_eventfd(ring.get(), event) == 0);
  checkpoint_here();
  do_nothing(ring, 1);
}

LIVE_TEST("io_uring: what the kernel does not tell is refused: provided buffers",
          Options{.dump_fails = "buffers are provided to it (group 7)"}) {
  Ring ring(4);
  void* memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  io_uring_buf_reg group{};
  group.ring_addr = reinterpret_cast<std::uint64_t>(memory);
  group.ring_entries = 16;
  group.bgid = 7;
  if (::io_uring_register_buf_ring(ring.get(), &group, 0) != 0) {
    skip("this kernel has no rings of buffers");
  }
  checkpoint_here();
  do_nothing(ring, 1);
}

namespace {

bool thread_named(const std::string& start) {
  const std::filesystem::directory_iterator threads("/proc/self/task");
  return std::any_of(begin(threads), end(threads),
                     [&](const auto& thread) { return read_text(thread.path() / "comm").starts_with(start); });
}

}  // namespace

LIVE_TEST("io_uring: a ring with a thread of the kernel is refused", Options{.dump_fails = "IORING_SETUP_SQPOLL"}) {
  Ring ring(4, IORING_SETUP_SQPOLL);
  await([] { return thread_named("iou-sqp-"); }, "the thread of the kernel has its name");
  checkpoint_here();
  do_nothing(ring, 1);
}

// ---- programs as they are written with liburing

namespace {

// Answers whatever comes, on all connections, until a client says so.
class EchoServer {
 public:
  explicit EchoServer(int listener) : ring_(64), listener_(listener) { accept(); }

  void serve() {
    for (bool more = true; more;) {
      ::io_uring_submit(ring_.get());
      const auto [data, result] = ring_.wait();
      more = handle(data, result);
    }
  }

 private:
  enum What : std::uint64_t { accepting = 1, receiving = 2, sending = 3 };
  static constexpr std::size_t size = 512;

  void accept() { ::io_uring_prep_accept(ring_.next(accepting), listener_, nullptr, nullptr, 0); }
  void receive(int fd) {
    buffers_.resize(std::max<std::size_t>(buffers_.size(), static_cast<std::size_t>(fd) + 1));
    auto& buffer = buffers_[static_cast<std::size_t>(fd)];
    buffer.resize(size);
    ::io_uring_prep_recv(ring_.next(receiving | static_cast<std::uint64_t>(fd) << 8), fd, buffer.data(), size, 0);
  }
  bool handle(std::uint64_t data, int result) {
    const int fd = static_cast<int>(data >> 8);
    switch (data & 0xff) {
      case accepting:
        accept();
        receive(result);
        return true;
      case receiving: {
        if (result <= 0) {
          ::close(fd);
          return true;
        }
        auto& buffer = buffers_[static_cast<std::size_t>(fd)];
        const bool last = std::memcmp(buffer.data(), "quit", 4) == 0;
        ::io_uring_prep_send(ring_.next(sending | static_cast<std::uint64_t>(fd) << 8), fd, buffer.data(),
                             static_cast<std::size_t>(result), 0);
        ::io_uring_submit(ring_.get());
        if (last) {
          ring_.wait();
        }
        return !last;
      }
      default:
        receive(fd);
        return true;
    }
  }

  Ring ring_;
  int listener_;
  std::vector<std::vector<char>> buffers_;
};

std::string ask(int client, const std::string& question) {
  CHECK_EQ(::write(client, question.data(), question.size()), static_cast<ssize_t>(question.size()));
  char answer[64] = {};
  return ::read(client, answer, sizeof answer) > 0 ? answer : "";
}

}  // namespace

LIVE_TEST("io_uring: an echo server and its clients") {
  const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "criu-live-echo-%d", ::getpid());
  REQUIRE(::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && ::listen(listener, 4) == 0);
  const auto connect = [&] {
    const int client = ::socket(AF_UNIX, SOCK_STREAM, 0);
    REQUIRE(::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    return client;
  };
  Child server([&] { EchoServer(listener).serve(); }, [](pid_t pid) { await_syscall(pid, SYS_io_uring_enter); });
  const int first = connect();
  for (int i = 0; i < 5; ++i) {
    CHECK_EQ(ask(first, "before " + std::to_string(i)), "before " + std::to_string(i));
  }
  await_syscall(server.pid(), SYS_io_uring_enter);
  checkpoint_here();
  CHECK_EQ(ask(first, "after"), "after");
  const int second = connect();
  CHECK_EQ(ask(second, "new"), "new");
  CHECK_EQ(ask(first, "again"), "again");
  CHECK_EQ(ask(second, "quit"), "quit");
  CHECK_EQ(server.join(), 0);
}

LIVE_TEST("io_uring: a reader of files") {
  const int file = ::open(scratch("file").c_str(), O_RDWR | O_CREAT, 0600);
  std::vector<char> contents(64 * 4096);
  for (std::size_t i = 0; i < contents.size(); ++i) {
    contents[i] = static_cast<char>(i / 4096);
  }
  REQUIRE(::write(file, contents.data(), contents.size()) == static_cast<ssize_t>(contents.size()));
  Ring ring(8);
  std::vector<std::vector<char>> blocks(64, std::vector<char>(4096));
  const auto read_blocks = [&](std::size_t from, std::size_t to) {
    for (auto at = from; at < to;) {
      int count = 0;
      for (; count < 8 && at < to; ++count, ++at) {
        ::io_uring_prep_read(ring.next(at), file, blocks[at].data(), 4096, at * 4096);
      }
      CHECK_EQ(::io_uring_submit(ring.get()), count);
      for (; count > 0; --count) {
        CHECK_EQ(ring.wait().second, 4096);
      }
    }
  };
  read_blocks(0, 20);
  // These are on their way, or have arrived unseen.
  for (std::size_t at = 20; at < 24; ++at) {
    ::io_uring_prep_read(ring.next(at), file, blocks[at].data(), 4096, at * 4096);
  }
  ring.submit(4);
  checkpoint_here();
  for (int i = 0; i < 4; ++i) {
    CHECK_EQ(ring.wait().second, 4096);
  }
  read_blocks(24, 64);
  for (std::size_t at = 0; at < 64; ++at) {
    CHECK(std::memcmp(blocks[at].data(), contents.data() + at * 4096, 4096) == 0);
  }
}
