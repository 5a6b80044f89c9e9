// SPDX-License-Identifier: GPL-2.0-only
#include "source.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.hpp"

namespace crit {

using base::Error;

namespace {

constexpr std::size_t buffer_size = 256 * 1024;

base::Fd open_input(const std::string& path) {
  if (path == "-") {
    return base::Fd(base::check(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0), "read", "standard input"));
  }
  return base::Fd(base::check(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "open", path));
}

}  // namespace

Source::Source(const std::string& path) : Source(open_input(path), path == "-" ? "standard input" : path) {}

Source::Source(base::Fd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {
  buffer_.resize(buffer_size);
}

bool Source::fill() {
  begin_ += end_;
  at_ = end_ = 0;
  ssize_t got = 0;
  do {
    got = ::read(fd_.get(), buffer_.data(), buffer_.size());
  } while (got < 0 && errno == EINTR);
  end_ = static_cast<std::size_t>(base::check(got, "read", name_));
  return end_ != 0;
}

void Source::corrupt(const std::string& why) const {
  throw Error("corrupt input", fmt::format("{} at byte {}: {}", name_, offset(), why), 0);
}

void Source::copy(std::optional<std::uint64_t> size, std::size_t piece, const Piece& to) {
  std::string whole;
  std::uint64_t left = size.value_or(UINT64_MAX);
  while (left > 0 && !at_end()) {
    const auto part = static_cast<std::size_t>(std::min<std::uint64_t>({left, end_ - at_, piece - whole.size()}));
    whole.append(buffer_, at_, part);
    at_ += part;
    left -= part;
    if (whole.size() == piece) {
      to(whole);
      whole.clear();
    }
  }
  if (size && left > 0) {
    corrupt(fmt::format("truncated, {} bytes wanted and {} there", *size, *size - left));
  }
  if (!whole.empty()) {
    to(whole);
  }
}

void Source::take(void* into, std::size_t size) {
  auto* at = static_cast<char*>(into);
  copy(size, buffer_size, [&at](std::string_view piece) {
    std::memcpy(at, piece.data(), piece.size());
    at += piece.size();
  });
}

std::uint32_t Source::u32() {
  std::uint32_t value = 0;
  take(&value, sizeof value);
  return value;
}

std::string Source::bytes(std::uint64_t size) {
  std::string all;
  copy(size, buffer_size, [&all](std::string_view piece) { all += piece; });
  return all;
}

void Source::skip(std::uint64_t size) {
  copy(size, buffer_size, [](std::string_view) {});
}

}  // namespace crit
