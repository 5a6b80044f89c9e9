// SPDX-License-Identifier: LGPL-2.1-only
// One image file: its magics, then records (u32 length and a message), some of them followed by raw bytes.
#pragma once

#include <google/protobuf/message_lite.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "image/catalog.hpp"
#include "image/outbox.hpp"

namespace criu::image {

// Creates an image file, in place of an older one of that name.
base::Fd create_file(int dir, const std::string& name);

// Writes an image. An image without records is no file at all; `touch` makes one appear without them. The file appears
// at `finish` at the latest, and so does the Error of a disk that is full; with an outbox, when that gets to it.
class Writer {
 public:
  Writer(int dir_fd, std::string name, const Type& type, Outbox* outbox = nullptr);
  Writer(Writer&&) noexcept = default;
  Writer& operator=(Writer&&) noexcept = default;

  void write(const google::protobuf::MessageLite& record);
  void raw(std::span<const std::byte> bytes);
  void touch();
  void finish();
  const std::string& name() const { return name_; }
  std::uint64_t bytes_written() const { return flushed_ + buffer_.size(); }

 private:
  void flush();

  int dir_fd_;
  std::string name_;
  const Type* type_;
  Outbox* outbox_;
  bool begun_ = false;
  base::Fd fd_;
  std::string buffer_;
  std::uint64_t flushed_ = 0;
};

// Reads an image, which may come from anybody: every length is checked against the file's size before it is used,
// and every error names the file and the offset in it.
class Reader {
 public:
  // Opens and checks the magics (both generations: with and without the family's).
  Reader(base::Fd fd, std::string name, const Type& type);

  // The next record; false exactly at the end of the file.
  bool next(google::protobuf::MessageLite& record);
  // The only record: none, or more than one, is an Error.
  void only(google::protobuf::MessageLite& record);
  // Raw bytes behind a record.
  std::vector<std::byte> raw(std::uint64_t size);
  void skip(std::uint64_t size);
  std::uint64_t left() const { return size_ - offset_; }
  // Where in the file the next byte comes from.
  std::uint64_t offset() const { return offset_; }
  int fd() const { return fd_.get(); }
  const std::string& name() const { return name_; }

 private:
  void take(void* into, std::uint64_t size);
  [[noreturn]] void corrupt(const std::string& why) const;

  base::Fd fd_;
  std::string name_;
  std::uint64_t size_ = 0;
  std::uint64_t offset_ = 0;
  std::string buffer_;
  std::size_t buffer_at_ = 0;
};

}  // namespace criu::image
