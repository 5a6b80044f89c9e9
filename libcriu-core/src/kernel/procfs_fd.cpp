// SPDX-License-Identifier: LGPL-2.1-only
#include "kernel/procfs_fd.hpp"

#include <charconv>

#include "base/error.hpp"

namespace criu::kernel {

using base::Error;

namespace {

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// Cuts the first line off.
std::string_view take_line(std::string_view& text) {
  const auto end = text.find('\n');
  const auto line = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return line;
}

template <typename T>
bool parse(std::string_view text, T& value, int base = 10) {
  return std::from_chars(text.data(), text.data() + text.size(), value, base).ec == std::errc{};
}

[[noreturn]] void unknown(std::string_view key, std::string_view text) {
  throw Error("read fdinfo", "no usable '" + std::string(key) + "' in '" + std::string(text.substr(0, 200)) + "'", 0);
}

// The number behind "name:" within a line of several such pairs.
template <typename T>
T pair(std::string_view line, std::string_view name, int base) {
  for (std::size_t at = 0; (at = line.find(name, at)) != std::string_view::npos; at += name.size()) {
    T value{};
    if ((at == 0 || line[at - 1] == ' ') && parse(trim(line.substr(at + name.size())), value, base)) {
      return value;
    }
  }
  unknown(name, line);
}

}  // namespace

std::optional<std::string_view> field(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const auto line = take_line(text);
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ':') {
      return trim(line.substr(key.size() + 1));
    }
  }
  return std::nullopt;
}

std::uint64_t number(std::string_view text, std::string_view key, int base) {
  std::uint64_t value = 0;
  const auto found = field(text, key);
  if (!found || !parse(*found, value, base)) {
    unknown(key, text);
  }
  return value;
}

Time time(std::string_view text, std::string_view key) {
  Time value{};
  const auto found = field(text, key);
  const auto comma = found ? found->find(',') : std::string_view::npos;
  if (comma == std::string_view::npos || found->front() != '(' || !parse(found->substr(1), value.seconds) ||
      !parse(trim(found->substr(comma + 1)), value.nanoseconds)) {
    unknown(key, text);
  }
  return value;
}

FdInfo parse_fdinfo(std::string text) {
  FdInfo info;
  info.text = std::move(text);
  // These four come first, in this order, in every kernel that has them; one pass is enough.
  std::string_view rest = info.text;
  for (int lines = 0; lines < 4 && !rest.empty(); ++lines) {
    const auto line = take_line(rest);
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) {
      break;
    }
    const auto key = line.substr(0, colon);
    const auto value = trim(line.substr(colon + 1));
    const bool good = key == "pos"      ? parse(value, info.pos)
                      : key == "flags"  ? parse(value, info.flags, 8)
                      : key == "mnt_id" ? parse(value, info.mnt_id)
                      : key == "ino"    ? parse(value, info.ino)
                                        : true;
    if (!good) {
      unknown(key, info.text);
    }
  }
  return info;
}

std::vector<EpollTarget> epoll_targets(std::string_view text) {
  std::vector<EpollTarget> targets;
  while (!text.empty()) {
    const auto line = take_line(text);
    if (!line.starts_with("tfd:")) {
      continue;
    }
    EpollTarget target;
    target.fd = pair<int>(line, "tfd:", 10);
    target.events = pair<std::uint32_t>(line, "events:", 16);
    target.data = pair<std::uint64_t>(line, "data:", 16);
    target.pos = pair<std::int64_t>(line, "pos:", 10);
    target.ino = pair<std::uint64_t>(line, "ino:", 16);
    target.dev = pair<std::uint32_t>(line, "sdev:", 16);
    targets.push_back(target);
  }
  return targets;
}

}  // namespace criu::kernel
