// SPDX-License-Identifier: LGPL-2.1-only
#include "files/ring_memory.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

constexpr std::size_t page = 4096;
constexpr std::uint32_t pass_flags = 2;  // IORING_MSG_RING_FLAGS_PASS, 6.3

base::Mapping map(int fd, std::size_t size, std::uint64_t offset, const std::string& what) {
  const auto length = (size + page - 1) / page * page;
  base::Mapping mapping(
      ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, static_cast<off_t>(offset)),
      length);
  if (!mapping) {
    throw Error("map the memory of", what, errno);
  }
  return mapping;
}

std::size_t rings_size(const io_uring_params& params) {
  const auto completions =
      params.cq_off.cqes + params.cq_entries * ((params.flags & IORING_SETUP_CQE32) != 0 ? std::size_t{32} : 16);
  return (params.flags & setup_no_sqarray) != 0
             ? completions
             : std::max<std::size_t>(completions, params.sq_off.array + params.sq_entries * sizeof(std::uint32_t));
}

io_uring_sqe& as_request(std::span<std::byte> entry) { return *reinterpret_cast<io_uring_sqe*>(entry.data()); }

// Fills the next `count` places of a ring, hands them in, and returns when they are done.
template <typename Fill>
void submit(int fd, RingMemory& ring, std::uint32_t count, const std::string& what, Fill fill) {
  const auto mask = ring.params().sq_entries - 1;
  const auto tail = ring.sq_tail();
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto slot = (tail + i) & mask;
    auto entry = ring.entry(slot);
    std::memset(entry.data(), 0, entry.size());
    fill(as_request(entry), i);
    if (ring.has_array()) {
      ring.array()[slot] = slot;
    }
  }
  __atomic_store_n(&ring.sq_tail(), tail + count, __ATOMIC_RELEASE);
  const auto done = enter_ring(fd, count, IORING_ENTER_GETEVENTS);
  if (done != static_cast<int>(count)) {
    throw Error("submit requests to", what, done < 0 ? -done : 0, "the kernel took fewer than were there");
  }
}

void do_nothing(int fd, RingMemory& ring, std::uint32_t count, std::uint8_t flags, const std::string& what) {
  while (count > 0) {
    const auto part = std::min(count, ring.params().sq_entries);
    submit(fd, ring, part, what, [flags](io_uring_sqe& request, std::uint32_t) {
      request.opcode = IORING_OP_NOP;
      request.flags = flags;
    });
    __atomic_store_n(&ring.cq_head(), __atomic_load_n(&ring.cq_tail(), __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
    count -= part;
  }
}

}  // namespace

base::Fd make_ring(std::uint32_t entries, io_uring_params& params, const std::string& what) {
  return base::Fd(static_cast<int>(check(::syscall(SYS_io_uring_setup, entries, &params), "make", what)));
}

int enter_ring(int fd, std::uint32_t submit, std::uint32_t flags) {
  const auto result = ::syscall(SYS_io_uring_enter, fd, submit, 0, flags, nullptr, 0);
  return result < 0 ? -errno : static_cast<int>(result);
}

RingMemory::RingMemory(int fd, const io_uring_params& params, const std::string& what)
    : params_(params),
      rings_(map(fd, rings_size(params), IORING_OFF_SQ_RING, what)),
      entries_(map(fd, params.sq_entries * entry_size(), IORING_OFF_SQES, what)) {}

void advance_ring(int fd, RingMemory& ring, std::uint32_t sq_head, std::uint32_t cq_tail, const std::string& what) {
  const auto both = std::min(sq_head, cq_tail);
  do_nothing(fd, ring, both, 0, what);
  do_nothing(fd, ring, sq_head - both, IOSQE_CQE_SKIP_SUCCESS, what);
  std::vector<Completion> more(std::min<std::size_t>(cq_tail - both, ring.params().cq_entries));
  for (auto left = cq_tail - both; left > 0;) {
    const auto part = std::min<std::size_t>(left, more.size());
    post_completions(fd, std::span(more).first(part), what);
    enter_ring(fd, 0, IORING_ENTER_GETEVENTS);
    __atomic_store_n(&ring.cq_head(), __atomic_load_n(&ring.cq_tail(), __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
    left -= static_cast<std::uint32_t>(part);
  }
  if (ring.sq_head() != sq_head || ring.cq_tail() != cq_tail) {
    throw Error("advance", what, 0,
                fmt::format("its counters are {} and {} instead of {} and {}", ring.sq_head(), ring.cq_tail(), sq_head,
                            cq_tail));
  }
}

void post_completions(int fd, std::span<const Completion> completions, const std::string& what) {
  if (completions.empty()) {
    return;
  }
  constexpr std::uint32_t most = 64;
  io_uring_params params{};
  const auto helper = make_ring(most, params, "a ring for messages");
  RingMemory memory(helper.get(), params, "a ring for messages");
  while (!completions.empty()) {
    const auto part = std::min<std::size_t>(completions.size(), params.sq_entries);
    submit(helper.get(), memory, static_cast<std::uint32_t>(part), "a ring for messages",
           [&](io_uring_sqe& request, std::uint32_t i) {
             request.opcode = IORING_OP_MSG_RING;
             request.fd = fd;
             request.off = completions[i].user_data;
             request.len = static_cast<std::uint32_t>(completions[i].result);
             request.rw_flags = completions[i].flags != 0 ? static_cast<int>(pass_flags) : 0;
             request.file_index = completions[i].flags;
           });
    for (std::uint32_t i = 0; i < part; ++i) {
      // A message that found no room and is kept aside counts as delivered; older kernels say EOVERFLOW for both.
      const auto result = memory.completion_at(memory.cq_head() + i).res;
      if (result < 0 && result != -EOVERFLOW) {
        throw Error("post completions to", what, -result, "needs Linux 5.18, with flags 6.3");
      }
    }
    memory.cq_head() = memory.cq_tail();
    completions = completions.subspan(part);
  }
}

}  // namespace criu::files
