// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/aio.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/aio_abi.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "restore_context.hpp"

namespace criu::memory {

using base::check;
using base::Error;

namespace {

// What a ring begins with. It is followed by the events.
struct Header {
  std::uint32_t id;  // of the context in the kernel's table for this address space
  std::uint32_t events;
  std::uint32_t head, tail;
  std::uint32_t magic, compat_features, incompat_features, header_length;
};
static_assert(sizeof(Header) == sizeof(io_event));
constexpr std::uint32_t ring_magic = 0xa10a10a1;

std::uint32_t events_in(std::uint64_t bytes) { return static_cast<std::uint32_t>(bytes / sizeof(io_event) - 1); }

// The argument to io_setup that yields a ring of that many events: the kernel doubles it and adds two.
std::uint32_t requests_for(std::uint32_t events) { return (events - 2) / 2; }

bool is_sound(const Header& header, std::uint64_t bytes) {
  return header.magic == ring_magic && header.incompat_features == 0 && header.header_length == sizeof(Header) &&
         header.events == events_in(bytes) && header.head < header.events && header.tail < header.events;
}

// A ring of this process, and how to bring it to where another one was.
class Ring {
 public:
  Ring(std::uint32_t requests, std::uint64_t size, std::string what) : size_(size), what_(std::move(what)) {
    check(::syscall(SYS_io_setup, requests, &context_), "make", what_, "fs.aio-max-nr may be too low");
    if (events_in(size) != header().events) {
      throw Error("cannot restore", what_, 0,
                  fmt::format("it had {} events; with as many processors as here the kernel makes rings of {}",
                              events_in(size), header().events));
    }
  }

  void move(std::uint64_t to) {
    if (::mremap(reinterpret_cast<void*>(context_), size_, size_, MREMAP_MAYMOVE | MREMAP_FIXED,  // NOLINT
                 reinterpret_cast<void*>(to)) == MAP_FAILED) {                                    // NOLINT
      throw Error("move", what_, errno);
    }
    context_ = to;
  }

  // Requests that are done at once count the kernel's own end of the ring up. Events that were not read stay in the
  // ring from the first, so that the kernel knows that their places are taken.
  void advance(const Header& saved) {
    const auto unread = (saved.tail + saved.events - saved.head) % saved.events;
    const auto all = saved.head + unread;
    const base::Fd null(check(::open("/dev/null", O_WRONLY | O_CLOEXEC), "open", "/dev/null"));
    for (std::uint32_t done = 0; done < all;) {
      const auto goal = done < saved.head ? saved.head : all;
      done += submit(null.get(), goal - done);
      if (done <= saved.head) {
        header().head = header().tail;
      }
    }
    if (header().tail != saved.tail) {
      throw Error("advance", what_, 0, "the kernel does not count as expected");
    }
  }

  void fill(const std::vector<std::byte>& saved) {
    const auto id = header().id;
    std::memcpy(reinterpret_cast<void*>(context_), saved.data(), size_);  // NOLINT
    header().id = id;
  }

 private:
  Header& header() { return *reinterpret_cast<Header*>(context_); }  // NOLINT

  std::uint32_t submit(int null, std::uint32_t wanted) {
    constexpr std::size_t most = 128;
    char byte = 0;
    iocb requests[most] = {};
    iocb* list[most];
    const auto count = std::min<std::size_t>(wanted, most);
    for (std::size_t i = 0; i < count; ++i) {
      requests[i].aio_lio_opcode = IOCB_CMD_PWRITE;
      requests[i].aio_fildes = static_cast<std::uint32_t>(null);
      requests[i].aio_buf = reinterpret_cast<std::uint64_t>(&byte);
      requests[i].aio_nbytes = 1;
      list[i] = &requests[i];
    }
    return static_cast<std::uint32_t>(
        check(::syscall(SYS_io_submit, context_, count, list), "submit requests to", what_));
  }

  aio_context_t context_ = 0;
  std::uint64_t size_;
  std::string what_;
};

std::string name_ring(const images::vma_entry& vma, const TaskImage& task) {
  return fmt::format("the ring of asynchronous I/O at {:x} of {}", vma.start(), task.name());
}

std::vector<std::byte> read_saved(const images::vma_entry& vma, const Pagemap& pagemap, const std::string& what) {
  std::vector<std::byte> bytes(vma.end() - vma.start());
  for (const auto& run : pagemap.runs()) {
    const auto from = std::max(run.start, vma.start());
    const auto to = std::min(run.start + run.size, vma.end());
    for (auto at = from; at < to;) {
      const auto got = check(::pread(pagemap.fd(run), bytes.data() + (at - vma.start()), to - at,
                                     static_cast<off_t>(run.offset + (at - run.start))),
                             "read the contents of", what);
      if (got == 0) {
        throw Error("corrupt checkpoint", "the contents of " + what + " end early", 0);
      }
      at += static_cast<std::uint64_t>(got);
    }
  }
  return bytes;
}

}  // namespace

bool is_aio_ring(const procfs::Area& area) { return area.name.starts_with("/[aio]"); }

void save_aio_ring(const procfs::Task& task, const procfs::Area& area, images::mm_entry& mm) {
  const auto mem = task.open("mem", O_RDONLY);
  const auto size = area.end - area.start;
  Header header{};
  if (::pread(mem.get(), &header, sizeof header, static_cast<off_t>(area.start)) != sizeof header ||
      !is_sound(header, size)) {
    throw Error("cannot dump", fmt::format("the ring of asynchronous I/O at {:x} of task {}", area.start, task.pid()),
                0, "it does not look as the kernel made it");
  }
  auto& entry = *mm.add_aios();
  entry.set_id(area.start);
  entry.set_nr_req(requests_for(header.events));
  entry.set_ring_len(static_cast<std::uint32_t>(size));
}

void AioRings::read(const TaskImage& task, const Pagemap& saved) {
  for (const auto& vma : task.mm.vmas()) {
    if ((vma.status() & aio_ring) != 0) {
      saved_[vma.start()] = read_saved(vma, saved, name_ring(vma, task));
    }
  }
}

void AioRings::make(RestoreContext& context, const TaskImage& task) {
  for (const auto& vma : task.mm.vmas()) {
    if ((vma.status() & aio_ring) == 0) {
      continue;
    }
    const auto size = vma.end() - vma.start();
    const auto what = name_ring(vma, task);
    const auto& bytes = saved_.at(vma.start());
    Header header{};
    std::memcpy(&header, bytes.data(), sizeof header);
    if (!is_sound(header, size)) {
      throw Error("corrupt checkpoint", what, 0);
    }
    Ring ring(requests_for(header.events), size, what);
    Space space;
    space.take(context.inherited.mappings);
    space.take(context.needed_addresses);
    space.take(own_mappings());
    const auto at = space.find(size, page_size);
    ring.move(at);
    ring.advance(header);
    ring.fill(bytes);
    context.inherited.mappings.push_back({at, at + size});
    parked_[vma.start()] = {at, at + size};
  }
}

}  // namespace criu::memory
