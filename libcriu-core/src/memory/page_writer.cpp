// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/page_writer.hpp"

#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "base/error.hpp"
#include "memory/buffer.hpp"
#include "memory/pages.hpp"
#include "worker.hpp"

namespace criu::memory {

using base::check;
using base::Error;

namespace {

constexpr std::uint64_t large_piece = 512 << 10;
// For few pages: what it takes to get a large buffer is more than what some more system calls take.
constexpr std::uint64_t small_piece = 64 << 10;
// Below this a second thread costs more than it saves.
constexpr std::uint64_t parallel_from = 8 << 20;
constexpr std::size_t most_ranges = 64;

struct Part {
  std::uint64_t start, size;
  const Source* source;
};

// What is read in one go: parts of one or several sources, of one way of reading.
struct Piece {
  std::vector<Part> parts;
  std::uint64_t size = 0;
};

std::vector<Piece> cut(const std::vector<Source>& sources, std::uint64_t piece_size) {
  std::vector<Piece> pieces;
  for (const auto& source : sources) {
    for (auto at = source.start; at < source.end;) {
      if (pieces.empty() || pieces.back().size == piece_size || pieces.back().parts.size() == most_ranges ||
          pieces.back().parts.front().source->directly != source.directly) {
        pieces.emplace_back();
      }
      auto& piece = pieces.back();
      const auto size = std::min(source.end - at, piece_size - piece.size);
      piece.parts.push_back({at, size, &source});
      piece.size += size;
      at += size;
    }
  }
  return pieces;
}

bool all_zero(const std::byte* page) {
  // Most pages differ early: look at the first words before the rest.
  std::uint64_t head[8];
  std::memcpy(head, page, sizeof head);
  if ((head[0] | head[1] | head[2] | head[3] | head[4] | head[5] | head[6] | head[7]) != 0) {
    return false;
  }
  return std::memcmp(page, page + sizeof head, page_size - sizeof head) == 0;
}

// What was read and is to be written later.
struct Held {
  base::Mapping buffer;
  std::vector<iovec> parts;
};

void write_at(int file, std::vector<iovec>& parts, std::uint64_t at) {
  for (std::size_t first = 0; first < parts.size();) {
    const auto count = std::min<std::size_t>(parts.size() - first, 1024);
    auto done = check(::pwritev(file, &parts[first], static_cast<int>(count), static_cast<off_t>(at)), "write pages");
    at += static_cast<std::uint64_t>(done);
    while (done > 0) {
      const auto part = std::min<std::size_t>(static_cast<std::size_t>(done), parts[first].iov_len);
      parts[first].iov_base = static_cast<std::byte*>(parts[first].iov_base) + part;
      parts[first].iov_len -= part;
      done -= static_cast<ssize_t>(part);
      first += parts[first].iov_len == 0 ? 1 : 0;
    }
  }
}

class Job {
 public:
  Job(pid_t pid, int mem, int file, std::vector<Piece> pieces, std::uint64_t piece_size,
      const std::function<bool()>& abandoned)
      : pid_(pid), mem_(mem), file_(file), pieces_(std::move(pieces)), piece_size_(piece_size), abandoned_(abandoned) {}

  void run(bool parallel) {
    std::thread helper;
    if (parallel) {
      helper = start_thread([this] { work(); });
    }
    work();
    if (helper.joinable()) {
      helper.join();
    }
    if (failure_) {
      std::rethrow_exception(failure_);
    }
  }

  // Reads all into the buffer, and leaves the writing to the caller.
  Held read_all(base::Mapping buffer) {
    auto* at = buffer.data();
    Held held{std::move(buffer), {}};
    std::vector<iovec> parts;
    for (std::size_t index = 0; index < pieces_.size(); ++index) {
      read(pieces_[index], at);
      place(index, at, parts);
      held.parts.insert(held.parts.end(), parts.begin(), parts.end());
      at += pieces_[index].size;
    }
    return held;
  }

  std::vector<Written> written;
  std::uint64_t offset = 0;

 private:
  void work() {
    std::vector<iovec> to_write;
    try {
      // Address spaces with few pages come one after the other: their buffer stays.
      thread_local base::Mapping small_buffer;
      base::Mapping large_buffer;
      auto& buffer = piece_size_ == small_piece ? small_buffer : large_buffer;
      if (!buffer) {
        buffer = map_buffer(piece_size_);
      }
      for (;;) {
        const auto index = take();
        if (index >= pieces_.size()) {
          return;
        }
        read(pieces_[index], buffer.data());
        const auto at = place(index, buffer.data(), to_write);
        write_at(file_, to_write, at);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = failure_ ? failure_ : std::current_exception();
      turn_.notify_all();
    }
  }

  std::size_t take() {
    const std::lock_guard lock(mutex_);
    return failure_ || (abandoned_ && abandoned_()) ? pieces_.size() : next_++;
  }

  void read(const Piece& piece, std::byte* into) const {
    if (piece.parts.front().source->directly && read_vm(piece, into)) {
      return;
    }
    for (const auto& part : piece.parts) {
      for (std::uint64_t done = 0; done < part.size;) {
        const auto got = check(::pread(mem_, into + done, part.size - done, static_cast<off_t>(part.start + done)),
                               "read memory of", fmt::format("task {} at {:#x}", pid_, part.start + done));
        if (got == 0) {
          throw Error("read memory of", fmt::format("task {} at {:#x}", pid_, part.start + done), EIO);
        }
        done += static_cast<std::uint64_t>(got);
      }
      into += part.size;
    }
  }

  // False when the fast way does not get at all of it, as with the vDSO.
  bool read_vm(const Piece& piece, std::byte* into) const {
    iovec local{into, piece.size};
    iovec remote[most_ranges];
    for (std::size_t i = 0; i < piece.parts.size(); ++i) {
      remote[i] = {reinterpret_cast<void*>(piece.parts[i].start), piece.parts[i].size};  // NOLINT
    }
    return ::process_vm_readv(pid_, &local, 1, remote, piece.parts.size(), 0) == static_cast<ssize_t>(piece.size);
  }

  // In the order of pieces: finds what is to be written, and where in the file it goes.
  std::uint64_t place(std::size_t index, std::byte* buffer, std::vector<iovec>& to_write) {
    to_write.clear();
    std::vector<Written> mine;
    std::uint64_t total = 0;
    auto* at = buffer;
    for (const auto& part : pieces_[index].parts) {
      for (std::uint64_t done = 0; done < part.size; done += page_size, at += page_size) {
        if (part.source->drop_zeros && all_zero(at)) {
          continue;
        }
        const auto address = part.start + done;
        if (!mine.empty() && mine.back().start + mine.back().pages * page_size == address &&
            mine.back().flags == part.source->flags && address != part.source->start) {
          ++mine.back().pages;
        } else {
          mine.push_back({address, 1, part.source->flags});
        }
        if (!to_write.empty() && static_cast<std::byte*>(to_write.back().iov_base) + to_write.back().iov_len == at) {
          to_write.back().iov_len += page_size;
        } else {
          to_write.push_back({at, page_size});
        }
        total += page_size;
      }
    }
    std::unique_lock lock(mutex_);
    turn_.wait(lock, [&] { return turn_index_ == index || failure_; });
    const auto place = offset;
    offset += total;
    ++turn_index_;
    append(mine);
    turn_.notify_all();
    return place;
  }

  void append(const std::vector<Written>& more) {
    for (const auto& entry : more) {
      auto* last = written.empty() ? nullptr : &written.back();
      if (last != nullptr && last->start + last->pages * page_size == entry.start && last->flags == entry.flags &&
          !starts_source(entry.start)) {
        last->pages += entry.pages;
      } else {
        written.push_back(entry);
      }
    }
  }

  // Entries do not go across the border between two areas.
  bool starts_source(std::uint64_t address) {
    while (border_ < pieces_.size() &&
           pieces_[border_].parts.back().start + pieces_[border_].parts.back().size <= address) {
      ++border_;
    }
    for (auto piece = border_; piece < pieces_.size() && pieces_[piece].parts.front().start <= address; ++piece) {
      for (const auto& part : pieces_[piece].parts) {
        if (part.start == address) {
          return part.source->start == address;
        }
      }
    }
    return false;
  }

  pid_t pid_;
  int mem_, file_;
  std::vector<Piece> pieces_;
  std::uint64_t piece_size_;
  const std::function<bool()>& abandoned_;
  std::size_t next_ = 0;
  std::size_t turn_index_ = 0;
  std::size_t border_ = 0;
  std::mutex mutex_;
  std::condition_variable turn_;
  std::exception_ptr failure_;
};

}  // namespace

std::vector<Written> PageWriter::write(const std::vector<Source>& sources) {
  std::uint64_t total = 0;
  for (const auto& source : sources) {
    total += source.end - source.start;
  }
  const auto piece = total < parallel_from ? small_piece : large_piece;
  Job job(pid_, mem_.get(), file_.get(), cut(sources, piece), piece, abandoned_);
  if (outbox_ != nullptr && outbox_->would_hold(total)) {
    auto held = std::make_shared<Held>(job.read_all(outbox_->room(total)));
    auto file = std::make_shared<base::Fd>(std::move(file_));
    outbox_->put(
        [held, file] {
          write_at(file->get(), held->parts, 0);
          check(::close(file->release()), "write pages");
        },
        total);
  } else {
    job.run(total >= parallel_from);
    check(::close(file_.release()), "write pages");
  }
  bytes_ = job.offset;
  return std::move(job.written);
}

}  // namespace criu::memory
