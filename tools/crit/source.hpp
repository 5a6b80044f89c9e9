// SPDX-License-Identifier: GPL-2.0-only
// Bytes that come from anywhere, a file or a pipe: read once, front to back, in bounded memory. Every error names the
// input and the place in it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/fd.hpp"

namespace crit {

class Source {
 public:
  // Standard input, when the path is "-".
  explicit Source(const std::string& path);
  Source(base::Fd fd, std::string name);

  // The next byte, which stays there; -1 at the end.
  int peek() {
    if (at_ == end_ && !fill()) {
      return -1;
    }
    return static_cast<unsigned char>(buffer_[at_]);
  }
  int get() {
    const int byte = peek();
    at_ += byte >= 0 ? 1 : 0;
    return byte;
  }
  bool at_end() { return peek() < 0; }
  std::uint64_t offset() const { return begin_ + at_; }
  const std::string& name() const { return name_; }

  // All of these end with an Error when fewer bytes are left. No length is believed: memory grows with what arrives.
  void take(void* into, std::size_t size);
  std::uint32_t u32();
  std::string bytes(std::uint64_t size);
  void skip(std::uint64_t size);
  // In pieces of `piece` bytes, the last one shorter. Without a size: to the end.
  using Piece = std::function<void(std::string_view)>;
  void copy(std::optional<std::uint64_t> size, std::size_t piece, const Piece& to);

  [[noreturn]] void corrupt(const std::string& why) const;

 private:
  bool fill();

  base::Fd fd_;
  std::string name_;
  std::string buffer_;
  std::size_t at_ = 0, end_ = 0;
  std::uint64_t begin_ = 0;  // the place of the buffer in the input
};

}  // namespace crit
