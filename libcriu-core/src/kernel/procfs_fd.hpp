// SPDX-License-Identifier: LGPL-2.1-only
// What /proc/PID/fdinfo says of a descriptor.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace criu::kernel {

struct FdInfo {
  std::int64_t pos = 0;
  unsigned flags = 0;  // status flags and O_CLOEXEC
  int mnt_id = -1;
  std::uint64_t ino = 0;
  std::string text;  // all lines, for those that are a kind's own
};

FdInfo parse_fdinfo(std::string text);

// The value of the line "key: value", without blanks around it.
std::optional<std::string_view> field(std::string_view text, std::string_view key);
// The same as a number; a line that is missing or no number is an Error that quotes the key.
std::uint64_t number(std::string_view text, std::string_view key, int base = 10);
// Both numbers of "key: (seconds, nanoseconds)".
struct Time {
  std::uint64_t seconds, nanoseconds;
};
Time time(std::string_view text, std::string_view key);

// One "tfd:" line of an epoll descriptor.
struct EpollTarget {
  int fd = -1;  // when it was added
  std::uint32_t events = 0;
  std::uint64_t data = 0;
  std::int64_t pos = 0;
  std::uint64_t ino = 0;
  std::uint32_t dev = 0;  // as the kernel encodes it
};
std::vector<EpollTarget> epoll_targets(std::string_view text);

}  // namespace criu::kernel
