// SPDX-License-Identifier: LGPL-2.1-only
#include "files/io_uring.hpp"

#include <fmt/format.h>
#include <io-uring.pb.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <bit>
#include <cstring>
#include <map>

#include "files/common.hpp"
#include "files/ring_memory.hpp"
#include "files/saver.hpp"
#include "log.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

constexpr std::uint32_t most_entries = 32768;  // IORING_MAX_ENTRIES
constexpr std::uint32_t known_flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                      IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SQE128 |
                                      IORING_SETUP_CQE32 | setup_no_sqarray;
constexpr std::uint32_t worth_a_word = 100'000'000;

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  auto& ring = *entry.mutable_io_uring();
  ring.set_id(entry.id());
  ring.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  saver.rings().push_back({entry.id(), description.pid, description.fd,
                           base::Fd(check(::fcntl(description.own, F_DUPFD_CLOEXEC, 0), "keep", description.what())),
                           description.stat.st_ino, description.what()});
}

// ---- restore ----

using Entries = std::map<std::uint32_t, images::io_uring_entry>;

void check_entry(const images::io_uring_entry& entry) {
  const std::size_t sqe = (entry.flags() & IORING_SETUP_SQE128) != 0 ? 128 : 64;
  const std::size_t cqe = (entry.flags() & IORING_SETUP_CQE32) != 0 ? 32 : 16;
  const bool has_array = (entry.flags() & setup_no_sqarray) == 0;
  bool sound = (entry.flags() & ~known_flags) == 0 && std::has_single_bit(entry.sq_entries()) &&
               std::has_single_bit(entry.cq_entries()) && entry.sq_entries() <= most_entries &&
               entry.cq_entries() <= 2 * most_entries && entry.entries().size() == entry.sq_entries() * sqe &&
               entry.completions().size() == entry.cq_entries() * cqe &&
               entry.array().size() == (has_array ? entry.sq_entries() * sizeof(std::uint32_t) : 0) &&
               entry.layout().size() == sizeof(io_sqring_offsets) + sizeof(io_cqring_offsets) &&
               static_cast<std::uint32_t>(entry.in_flight_size()) <= entry.sq_entries() &&
               static_cast<std::uint32_t>(entry.in_flight_size()) <= entry.sq_head() &&
               entry.file_slots() <= most_entries && entry.buffer_slots() <= 1U << 14;
  for (const auto& request : entry.in_flight()) {
    sound = sound && request.size() == sqe;
  }
  for (const auto& file : entry.files()) {
    sound = sound && file.index() < entry.file_slots();
  }
  for (const auto& buffer : entry.buffers()) {
    sound = sound && buffer.index() < entry.buffer_slots();
  }
  if (!sound) {
    throw Error("corrupt image", fmt::format("io-uring.img: ring {}", entry.id()), 0);
  }
}

// All rings of the checkpoint, read by the first task that makes one.
const Entries& all_entries(const RestoreContext& context) {
  static const Entries entries = [&context] {
    Entries read;
    auto reader = context.images.open(image::type::io_uring);
    images::io_uring_entry entry;
    while (reader && reader->next(entry)) {
      check_entry(entry);
      read.emplace(entry.id(), entry);
    }
    return read;
  }();
  return entries;
}

const images::io_uring_entry& entry_of(const RestoreContext& context, std::uint32_t id) {
  const auto found = all_entries(context).find(id);
  if (found == all_entries(context).end()) {
    throw Error("corrupt checkpoint", fmt::format("io-uring.img has no ring {}", id), 0);
  }
  return found->second;
}

std::string name_ring(std::uint32_t id) { return fmt::format("io_uring (file {})", id); }

std::string layout_of(const io_uring_params& params) {
  std::string text(reinterpret_cast<const char*>(&params.sq_off), sizeof params.sq_off);
  return text.append(reinterpret_cast<const char*>(&params.cq_off), sizeof params.cq_off);
}

// What the memory is to look like in the end.
void put_memory(RingMemory& ring, const images::io_uring_entry& entry) {
  std::memcpy(ring.entries().data(), entry.entries().data(), entry.entries().size());
  std::memcpy(ring.array().data(), entry.array().data(), entry.array().size());
  std::memcpy(ring.completions().data(), entry.completions().data(), entry.completions().size());
  ring.sq_tail() = entry.sq_tail();
  ring.cq_head() = entry.cq_head();
  ring.sq_dropped() = entry.sq_dropped();
  ring.cq_flags() = entry.cq_flags();
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto id = group.front()->io_uring().id();
  const auto& entry = entry_of(context, id);
  const auto what = name_ring(id);
  io_uring_params params{};
  params.flags = entry.flags() | IORING_SETUP_CQSIZE;
  params.cq_entries = entry.cq_entries();
  auto fd = make_ring(entry.sq_entries(), params, what);
  if (params.sq_entries != entry.sq_entries() || params.cq_entries != entry.cq_entries() ||
      layout_of(params) != entry.layout()) {
    throw Error("cannot restore", what, 0,
                "this kernel lays out the memory of rings in another way than the one that it was dumped on");
  }
  RingMemory ring(fd.get(), params, what);
  const auto in_flight = static_cast<std::uint32_t>(entry.in_flight_size());
  if (entry.sq_head() > worth_a_word || entry.cq_tail() > worth_a_word) {
    LOG_INFO("{} has done {} requests: to count up to there takes some seconds", what, entry.sq_head());
  }
  advance_ring(fd.get(), ring, entry.sq_head() - in_flight, entry.cq_tail(), what);
  put_memory(ring, entry);
  std::vector<Completion> kept;
  for (const auto& completion : entry.kept()) {
    kept.push_back({completion.user_data(), completion.result(), completion.flags()});
  }
  post_completions(fd.get(), kept, what);
  enter_ring(fd.get(), 0, IORING_ENTER_GETEVENTS);  // some rings take messages only when asked to
  ring.cq_overflow() = entry.cq_overflow();
  set_flags(fd.get(), group.front()->io_uring().flags(), what);
  return one(std::move(fd));
}

// The number that the task itself knows the ring by.
int number_of(const TaskImage& task, std::uint32_t id, int otherwise) {
  for (const auto& fd : task.fds) {
    if (fd.type() == images::IO_URING && fd.id() == id) {
      return static_cast<int>(fd.fd());
    }
  }
  return otherwise;
}

std::vector<RingStep>& steps() {
  static std::vector<RingStep> all;
  return all;
}

template <typename T>
std::vector<std::byte> as_bytes(const T& items) {
  const auto bytes = std::as_bytes(std::span(items));
  return {bytes.begin(), bytes.end()};
}

void register_files(const RestoreContext& context, const images::io_uring_entry& entry, int fd) {
  if (entry.file_slots() == 0) {
    return;
  }
  const auto what = name_ring(entry.id());
  std::vector<int> slots(entry.file_slots(), -1);
  std::vector<base::Fd> fetched;
  for (const auto& file : entry.files()) {
    fetched.push_back(context.files.fetch(context, file.file_id(), "a registered file of " + what));
    slots[file.index()] = fetched.back().get();
  }
  check(::syscall(SYS_io_uring_register, fd, IORING_REGISTER_FILES, slots.data(), slots.size()),
        "register the files of", what);
}

void plan_buffers(const images::io_uring_entry& entry, int fd) {
  if (entry.buffer_slots() == 0) {
    return;
  }
  std::vector<iovec> slots(entry.buffer_slots());
  for (const auto& buffer : entry.buffers()) {
    slots[buffer.index()] = {reinterpret_cast<void*>(buffer.address()), buffer.length()};  // NOLINT
  }
  steps().push_back({.number = SYS_io_uring_register,
                     .args = {static_cast<std::uint64_t>(fd), IORING_REGISTER_BUFFERS, 0, slots.size()},
                     .data = as_bytes(slots),
                     .data_at = 2,
                     .expected = 0,
                     .what = "register the buffers of an io_uring"});
}

// The entries are put into the places that the kernel reads next, handed in, and what was in these places is put back.
void plan_requests(const images::io_uring_entry& entry, const io_uring_params& params, std::uint64_t rings,
                   std::uint64_t entries, int fd) {
  const auto count = static_cast<std::uint32_t>(entry.in_flight_size());
  if (count == 0) {
    return;
  }
  const auto size = static_cast<std::size_t>(entry.in_flight(0).size());
  const auto first = entry.sq_head() - count;
  const auto put = [](std::uint64_t to, const void* from, std::size_t bytes) {
    const auto* begin = static_cast<const std::byte*>(from);
    steps().push_back({.number = 0, .args = {to, 0, bytes}, .data = {begin, begin + bytes}, .data_at = 1});
  };
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto slot = (first + i) & (entry.sq_entries() - 1);
    put(entries + slot * size, entry.in_flight(static_cast<int>(i)).data(), size);
    if (!entry.array().empty()) {
      put(rings + params.sq_off.array + slot * sizeof slot, &slot, sizeof slot);
    }
  }
  steps().push_back({.number = SYS_io_uring_enter,
                     .args = {static_cast<std::uint64_t>(fd), count, 0, 0, 0, 0},
                     .expected = count,
                     .what = "submit requests of an io_uring again"});
  put(entries, entry.entries().data(), entry.entries().size());
  if (!entry.array().empty()) {
    put(rings + params.sq_off.array, entry.array().data(), entry.array().size());
  }
}

std::uint64_t area_at(const TaskImage& task, std::uint32_t id, std::uint64_t offset) {
  for (const auto& vma : task.mm.vmas()) {
    if ((vma.status() & memory::io_uring) != 0 && vma.shmid() == id && vma.pgoff() == offset) {
      return vma.start();
    }
  }
  return 0;
}

void connect(RestoreContext& context, const TaskImage& task, std::span<const Made> made) {
  for (const auto& ring : made) {
    const auto& entry = entry_of(context, ring.entry->id());
    register_files(context, entry, ring.fd);
    const auto fd = number_of(task, entry.id(), ring.fd);
    plan_buffers(entry, fd);
    if (entry.in_flight_size() > 0) {
      io_uring_params params{};
      std::memcpy(&params.sq_off, entry.layout().data(), sizeof params.sq_off);
      const auto rings = area_at(task, entry.id(), IORING_OFF_SQ_RING);
      const auto entries = area_at(task, entry.id(), IORING_OFF_SQES);
      if (rings == 0 || entries == 0) {
        throw Error("corrupt checkpoint", task.name() + " has not mapped " + name_ring(entry.id()), 0);
      }
      plan_requests(entry, params, rings, entries, fd);
    }
  }
}

}  // namespace

std::vector<RingStep> take_ring_steps() { return std::exchange(steps(), {}); }

const Kind io_uring_kind = {
    .type = images::IO_URING,
    .name = "io_uring",
    .recognise = [](const Description& description) { return description.link == "anon_inode:[io_uring]"; },
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_io_uring()->mutable_fown(); },
    .make = make,
    .connect = connect,
};

}  // namespace criu::files
