// SPDX-License-Identifier: LGPL-2.1-only
#include "files/queues.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pipe-data.pb.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <limits>
#include <numeric>

#include "base/error.hpp"
#include "files/saver.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// No kernel makes pipes of more.
constexpr std::uint32_t largest_pipe = 1U << 31;

void write_part(int writer, const std::vector<std::byte>& bytes, std::size_t from, std::size_t to,
                const std::string& what) {
  while (from < to) {
    const auto done = ::write(writer, bytes.data() + from, to - from);
    if (done < 0 && errno == EAGAIN) {
      throw Error("corrupt checkpoint", what + " has more unread data than it can hold", 0);
    }
    from += static_cast<std::size_t>(check(done, "fill", what));
  }
}

// Reads a copy of what is in the pipe, which keeps it. Returns how much each read brought: packets come one by one.
std::vector<std::uint32_t> read_copy(int reader, int size, std::vector<std::byte>& bytes, const std::string& what) {
  int numbers[2];
  check(::pipe2(numbers, O_CLOEXEC | O_NONBLOCK), "make a pipe to look into", what);
  const base::Fd ends[2] = {base::Fd(numbers[0]), base::Fd(numbers[1])};
  check(::fcntl(ends[1].get(), F_SETPIPE_SZ, size), "make as large a pipe as", what);
  if (check(::tee(reader, ends[1].get(), bytes.size(), SPLICE_F_NONBLOCK), "look into", what) !=
      static_cast<ssize_t>(bytes.size())) {
    throw Error("look into", what + ": somebody reads it meanwhile", 0);
  }
  std::vector<std::uint32_t> sizes;
  for (std::size_t done = 0; done < bytes.size();) {
    const auto got = check(::read(ends[0].get(), bytes.data() + done, bytes.size() - done), "read the copy of", what);
    sizes.push_back(static_cast<std::uint32_t>(got));
    done += static_cast<std::size_t>(got);
  }
  return sizes;
}

}  // namespace

Queues::Queues(const RestoreContext& context, const image::Type& type) {
  auto reader = context.images.open(type);
  if (!reader) {
    return;
  }
  fd_ = context.internal(base::Fd(check(::fcntl(reader->fd(), F_DUPFD_CLOEXEC, 0), "keep open", reader->name())));
  images::pipe_data_entry entry;
  while (reader->next(entry)) {
    Queue queue{
        fd_.get(), reader->offset(), entry.bytes(), entry.size(), {entry.packets().begin(), entry.packets().end()}};
    const auto sum = std::accumulate(queue.packets.begin(), queue.packets.end(), std::uint64_t{0});
    if (queue.bytes > largest_pipe || queue.size > largest_pipe || (!queue.packets.empty() && sum != queue.bytes)) {
      throw Error(
          "corrupt image",
          fmt::format("{}: {} bytes in pipe {} of {}", reader->name(), queue.bytes, entry.pipe_id(), queue.size), 0);
    }
    reader->skip(queue.bytes);
    if (!queues_.emplace(entry.pipe_id(), std::move(queue)).second) {
      throw Error("corrupt image", fmt::format("{}: pipe {} is there twice", reader->name(), entry.pipe_id()), 0);
    }
  }
}

const Queue* Queues::find(std::uint32_t pipe_id) const {
  const auto found = queues_.find(pipe_id);
  return found == queues_.end() ? nullptr : &found->second;
}

void fill_queue(int writer, const Queue& queue, const std::string& what) {
  const auto usual = check(::fcntl(writer, F_GETPIPE_SZ), "read the size of", what);
  if (queue.size != 0 && static_cast<std::uint32_t>(usual) != queue.size) {
    check(::fcntl(writer, F_SETPIPE_SZ, static_cast<int>(queue.size)), "set the size of", what);
  }
  if (queue.bytes == 0) {
    return;
  }
  std::vector<std::byte> bytes(queue.bytes);
  for (std::size_t done = 0; done < bytes.size();) {
    const auto got =
        check(::pread(queue.fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(queue.offset + done)),
              "read the contents of", what);
    if (got == 0) {
      throw Error("corrupt image", "the contents of " + what + " end early", 0);
    }
    done += static_cast<std::size_t>(got);
  }
  // Never waiting: nobody reads yet.
  check(::fcntl(writer, F_SETFL, O_NONBLOCK | (queue.packets.empty() ? 0 : O_DIRECT)), "prepare", what);
  std::size_t at = 0;
  for (const auto packet : queue.packets) {
    write_part(writer, bytes, at, at + packet, what);
    at += packet;
  }
  write_part(writer, bytes, at, bytes.size(), what);
  check(::fcntl(writer, F_SETFL, 0), "prepare", what);
}

void save_queue(Saver& saver, const image::Type& type, int reader, std::uint32_t pipe_id, const std::string& what) {
  if (!saver.first_queue(type, pipe_id)) {
    return;
  }
  const auto size = check(::fcntl(reader, F_GETPIPE_SZ), "read the size of", what);
  int waiting = 0;
  check(::ioctl(reader, FIONREAD, &waiting), "look into", what);
  images::pipe_data_entry entry;
  entry.set_pipe_id(pipe_id);
  entry.set_size(static_cast<std::uint32_t>(size));
  std::vector<std::byte> bytes(static_cast<std::size_t>(waiting));
  if (waiting > 0) {
    const auto sizes = read_copy(reader, size, bytes, what);
    // Streams come in one piece, but for those larger than a read.
    if ((check(::fcntl(reader, F_GETFL), "read flags of", what) & O_DIRECT) != 0 || sizes.size() > 1) {
      for (const auto packet : sizes) {
        entry.add_packets(packet);
      }
    }
  }
  entry.set_bytes(static_cast<std::uint32_t>(waiting));
  auto& image = saver.image(type);
  image.write(entry);
  image.raw(bytes);
}

}  // namespace criu::files
