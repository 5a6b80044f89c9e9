// SPDX-License-Identifier: LGPL-2.1-only
// The directory a checkpoint lives in.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "base/fd.hpp"
#include "image/outbox.hpp"
#include "image/stream.hpp"

namespace criu::image {

class Directory {
 public:
  explicit Directory(const std::string& path);
  explicit Directory(base::Fd fd) : fd_(std::move(fd)) {}

  // From now on files to be read are opened this way: their path to a descriptor, or none and errno.
  using Opener = std::function<base::Fd(const std::string&)>;
  void open_through(Opener opener) { opener_ = std::move(opener); }
  // One of them by its path. Empty, with errno, if that does not work.
  base::Fd open_file(const std::string& path) const;

  // A directory in it; an Error if there is none.
  Directory below(const std::string& name) const;

  // From now on images are written through it.
  void write_through(Outbox& outbox) { outbox_ = &outbox; }
  Outbox* outbox() const { return outbox_; }
  Writer create(const Type& type, std::uint64_t number = 0) const {
    return {fd_.get(), file_name(type, number), type, outbox_};
  }
  // A raw file (pages), empty, open for writing.
  base::Fd create_raw(const Type& type, std::uint64_t number) const;
  // One for reading; missing it is an Error.
  base::Fd open_raw(const Type& type, std::uint64_t number) const;
  // Nothing when there is no such file; in this format that stands for an image without records.
  std::optional<Reader> open(const Type& type, std::uint64_t number = 0) const;
  // Like open, but a missing file is an Error.
  Reader require(const Type& type, std::uint64_t number = 0) const;

  // The one record of a required image.
  template <typename Message>
  Message only(const Type& type, std::uint64_t number = 0) const {
    Message message;
    require(type, number).only(message);
    return message;
  }
  // Writes an image of one record.
  void put(const Type& type, std::uint64_t number, const google::protobuf::MessageLite& record) const;

  int fd() const { return fd_.get(); }
  // The same directory by another descriptor.
  base::Fd release() { return std::move(fd_); }

 private:
  base::Fd fd_;
  Outbox* outbox_ = nullptr;
  Opener opener_;
};

}  // namespace criu::image
