// SPDX-License-Identifier: LGPL-2.1-only
#include "image/stream.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

#include "base/error.hpp"

namespace criu::image {

using base::Error;

namespace {

constexpr std::size_t write_buffer = 256 * 1024;
constexpr std::size_t read_buffer = 64 * 1024;
// No message of a sane checkpoint comes near this; protobuf itself ends at 2 GiB.
constexpr std::uint32_t largest_record = 1U << 30;

void append_u32(std::string& to, std::uint32_t value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void write_all(int fd, const std::string& bytes, const std::string& name) {
  for (std::size_t done = 0; done < bytes.size();) {
    done += static_cast<std::size_t>(
        base::check(::write(fd, bytes.data() + done, bytes.size() - done), "write image", name));
  }
}

}  // namespace

base::Fd create_file(int dir, const std::string& name) {
  constexpr int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
  base::Fd fd(::openat(dir, name.c_str(), flags, 0644));
  if (!fd && errno == EEXIST) {
    // Never through what may stand there: a file of an older dump may be shared with a snapshot by a hard link.
    ::unlinkat(dir, name.c_str(), 0);
    fd = base::Fd(::openat(dir, name.c_str(), flags, 0644));
  }
  if (!fd) {
    throw Error("create image", name, errno);
  }
  return fd;
}

std::string file_name(const Type& type, std::uint64_t number) { return fmt::format(fmt::runtime(type.name), number); }

Writer::Writer(int dir_fd, std::string name, const Type& type, Outbox* outbox)
    : dir_fd_(dir_fd), name_(std::move(name)), type_(&type), outbox_(outbox) {}

void Writer::touch() {
  if (begun_) {
    return;
  }
  begun_ = true;
  if (type_->family != Family::none) {
    append_u32(buffer_, static_cast<std::uint32_t>(type_->family));
  }
  if (type_->magic != 0) {
    append_u32(buffer_, type_->magic);
  }
}

void Writer::write(const google::protobuf::MessageLite& record) {
  touch();
  const auto size = record.ByteSizeLong();
  append_u32(buffer_, static_cast<std::uint32_t>(size));
  const auto at = buffer_.size();
  buffer_.resize(at + size);
  record.SerializeWithCachedSizesToArray(reinterpret_cast<std::uint8_t*>(buffer_.data() + at));
  if (buffer_.size() >= write_buffer) {
    flush();
  }
}

void Writer::raw(std::span<const std::byte> bytes) {
  touch();
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), write_buffer));
    buffer_.append(reinterpret_cast<const char*>(part.data()), part.size());
    bytes = bytes.subspan(part.size());
    if (buffer_.size() >= write_buffer) {
      flush();
    }
  }
}

void Writer::flush() {
  if (!fd_) {
    fd_ = create_file(dir_fd_, name_);
  }
  write_all(fd_.get(), buffer_, name_);
  flushed_ += buffer_.size();
  buffer_.clear();
}

void Writer::finish() {
  if (!begun_) {
    return;
  }
  begun_ = false;
  if (outbox_ == nullptr || fd_) {
    flush();
    base::check(::close(fd_.release()), "close image", name_);
    return;
  }
  const auto size = buffer_.size();
  flushed_ += size;
  outbox_->put(
      [dir = dir_fd_, name = name_, bytes = std::move(buffer_)] {
        auto fd = create_file(dir, name);
        write_all(fd.get(), bytes, name);
        base::check(::close(fd.release()), "close image", name);
      },
      size);
  buffer_.clear();
}

Reader::Reader(base::Fd fd, std::string name, const Type& type) : fd_(std::move(fd)), name_(std::move(name)) {
  struct stat st {};
  base::check(::fstat(fd_.get(), &st), "stat image", name_);
  if (!S_ISREG(st.st_mode)) {
    throw Error("image is not a regular file", name_, 0);
  }
  size_ = static_cast<std::uint64_t>(st.st_size);
  if (type.magic == 0) {
    return;
  }
  std::uint32_t magic = 0;
  take(&magic, sizeof magic);
  if (type.family != Family::none && magic == static_cast<std::uint32_t>(type.family)) {
    take(&magic, sizeof magic);
  }
  if (magic != type.magic) {
    throw Error("foreign image",
                fmt::format("{} starts with {:#010x}, not with {}'s {:#010x}", name_, magic, type.id, type.magic), 0);
  }
}

void Reader::corrupt(const std::string& why) const {
  throw Error("corrupt image", fmt::format("{} at byte {}: {}", name_, offset_, why), 0);
}

void Reader::take(void* into, std::uint64_t size) {
  if (size > left()) {
    corrupt(fmt::format("truncated, {} bytes wanted and {} left", size, left()));
  }
  auto* at = static_cast<char*>(into);
  while (size > 0) {
    if (buffer_at_ == buffer_.size()) {
      const auto room = static_cast<std::size_t>(std::min<std::uint64_t>(read_buffer, left()));
      buffer_.resize(room);
      const auto got =
          base::check(::pread(fd_.get(), buffer_.data(), room, static_cast<off_t>(offset_)), "read image", name_);
      if (got == 0) {
        corrupt("the file became shorter while it was read");
      }
      buffer_.resize(static_cast<std::size_t>(got));
      buffer_at_ = 0;
    }
    const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(size, buffer_.size() - buffer_at_));
    std::memcpy(at, buffer_.data() + buffer_at_, part);
    buffer_at_ += part;
    at += part;
    size -= part;
    offset_ += part;
  }
}

bool Reader::next(google::protobuf::MessageLite& record) {
  if (left() == 0) {
    return false;
  }
  std::uint32_t size = 0;
  take(&size, sizeof size);
  if (size > left() || size > largest_record) {
    corrupt(fmt::format("a record of {} bytes with {} left", size, left()));
  }
  std::string body(size, '\0');
  take(body.data(), size);
  // In two steps: protobuf would say on stderr what the error says.
  if (!record.ParsePartialFromString(body)) {
    corrupt("not a " + record.GetTypeName());
  }
  if (!record.IsInitialized()) {
    corrupt("a " + record.GetTypeName() + " without a required field");
  }
  return true;
}

void Reader::only(google::protobuf::MessageLite& record) {
  if (!next(record)) {
    corrupt("no record");
  }
  if (left() != 0) {
    corrupt("more than one record");
  }
}

std::vector<std::byte> Reader::raw(std::uint64_t size) {
  if (size > left()) {
    corrupt(fmt::format("{} bytes of data wanted and {} left", size, left()));
  }
  std::vector<std::byte> bytes(size);
  take(bytes.data(), size);
  return bytes;
}

void Reader::skip(std::uint64_t size) {
  if (size > left()) {
    corrupt(fmt::format("{} bytes of data wanted and {} left", size, left()));
  }
  const auto buffered = std::min<std::uint64_t>(size, buffer_.size() - buffer_at_);
  buffer_at_ += buffered;
  offset_ += size;
  if (buffered < size) {
    buffer_.clear();
    buffer_at_ = 0;
  }
}

}  // namespace criu::image
