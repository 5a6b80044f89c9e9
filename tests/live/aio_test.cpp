// SPDX-License-Identifier: GPL-2.0-only
// Asynchronous I/O (io_setup): contexts with their rings.
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <ctime>
#include <string>

#include "harness/live.hpp"

using namespace live;

namespace {

struct Ring {
  std::uint32_t id, events, head, tail;
};

Ring& ring_of(aio_context_t context) { return *reinterpret_cast<Ring*>(context); }

iocb request(int fd, std::uint16_t opcode, void* buffer, std::size_t size, std::uint64_t data) {
  iocb result{};
  result.aio_data = data;
  result.aio_lio_opcode = opcode;
  result.aio_fildes = static_cast<std::uint32_t>(fd);
  result.aio_buf = reinterpret_cast<std::uint64_t>(buffer);
  result.aio_nbytes = size;
  return result;
}

// A read of what the file has, by the ring.
void read_file(aio_context_t context, int fd, std::uint64_t data) {
  char text[8] = {};
  auto read = request(fd, IOCB_CMD_PREAD, text, sizeof text, data);
  iocb* list = &read;
  CHECK_EQ(::syscall(SYS_io_submit, context, 1, &list), 1);
  io_event event{};
  CHECK_EQ(::syscall(SYS_io_getevents, context, 1, 1, &event, nullptr), 1);
  CHECK_EQ(event.data, data);
  CHECK_EQ(event.res, 5);
  CHECK(std::strcmp(text, "hello") == 0);
}

void submit_write(aio_context_t context, int fd, std::uint64_t data) {
  auto write = request(fd, IOCB_CMD_PWRITE, const_cast<char*>("hello"), 5, data);
  iocb* list = &write;
  REQUIRE(::syscall(SYS_io_submit, context, 1, &list) == 1);
}

int scratch_file() {
  const int fd = ::open(scratch("file").c_str(), O_RDWR | O_CREAT, 0600);
  REQUIRE(fd >= 0 && ::write(fd, "hello", 5) == 5);
  return fd;
}

}  // namespace

LIVE_TEST("aio: an unused ring") {
  const int fd = scratch_file();
  aio_context_t context = 0;
  REQUIRE(::syscall(SYS_io_setup, 16, &context) == 0);
  checkpoint_here();
  read_file(context, fd, 1);
  CHECK_EQ(::syscall(SYS_io_destroy, context), 0);
  aio_context_t another = 0;
  CHECK_EQ(::syscall(SYS_io_setup, 16, &another), 0);
}

LIVE_TEST("aio: events that nobody has read yet, in a ring that has gone round") {
  const int fd = scratch_file();
  aio_context_t context = 0, other = 0;
  REQUIRE(::syscall(SYS_io_setup, 8, &other) == 0);
  REQUIRE(::syscall(SYS_io_setup, 200, &context) == 0);
  const auto events = ring_of(context).events;
  io_event event{};
  for (std::uint32_t i = 0; i + 2 < events; ++i) {
    submit_write(context, fd, i);
    REQUIRE(::syscall(SYS_io_getevents, context, 1, 1, &event, nullptr) == 1);
  }
  for (std::uint64_t data = 1000; data < 1005; ++data) {
    submit_write(context, fd, data);
  }
  REQUIRE(ring_of(context).head > ring_of(context).tail);
  const auto before = ring_of(context);
  checkpoint_here();
  CHECK_EQ(ring_of(context).head, before.head);
  CHECK_EQ(ring_of(context).tail, before.tail);
  CHECK_EQ(ring_of(context).events, before.events);
  for (std::uint64_t data = 1000; data < 1005; ++data) {
    CHECK_EQ(::syscall(SYS_io_getevents, context, 1, 1, &event, nullptr), 1);
    CHECK_EQ(event.data, data);
    CHECK_EQ(event.res, 5);
  }
  read_file(context, fd, 7);
  read_file(other, fd, 8);
  // All places of the ring can be used again.
  std::uint32_t taken = 0;
  auto write = request(fd, IOCB_CMD_PWRITE, const_cast<char*>("hello"), 5, 0);
  iocb* list = &write;
  while (taken < 2 * events && ::syscall(SYS_io_submit, context, 1, &list) == 1) {
    ++taken;
  }
  CHECK(taken < events);
  CHECK(taken > events / 2);
}
