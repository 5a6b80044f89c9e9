// SPDX-License-Identifier: LGPL-2.1-only
// Small things that most kinds need.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <string>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "files/kind.hpp"

namespace criu::files {

// The status flags that can be set on an open descriptor; objects that no open() makes get theirs so.
constexpr unsigned settable_flags = O_APPEND | O_ASYNC | O_NONBLOCK | O_DIRECT | O_NOATIME;

inline void set_flags(int fd, std::uint32_t flags, const std::string& what) {
  if ((flags & settable_flags) != 0) {
    base::check(::fcntl(fd, F_SETFL, static_cast<int>(flags & settable_flags)), "set flags of", what);
  }
}

// A further description of what `fd` refers to, with flags of its own.
inline base::Fd reopen(int fd, int flags, const std::string& what) {
  return base::Fd(
      base::check(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), flags | O_CLOEXEC | O_NOCTTY), "reopen", what));
}

// For what is finished by the number that a task has it by.
inline void refuse_in_flight(const Description& description) {
  if (!description.referrer.empty()) {
    throw base::Error("cannot dump", description.what() + ": it is not open in a task, only on its way to one", 0);
  }
}

inline std::vector<base::Fd> one(base::Fd fd) {
  std::vector<base::Fd> result;
  result.push_back(std::move(fd));
  return result;
}

// How images encode a device number: as the kernel keeps it, not as stat() shows it.
inline std::uint32_t kernel_dev(dev_t dev) { return gnu_dev_major(dev) << 20 | (gnu_dev_minor(dev) & 0xfffff); }

}  // namespace criu::files
