// SPDX-License-Identifier: GPL-2.0-only
// What reads bytes that somebody else wrote, one function each. Bad bytes are a base::Error, which is caught here; all
// else (another exception, a crash, what a sanitizer finds) is a bug.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace fuzz {

using Bytes = std::span<const std::byte>;

struct Entry {
  const char* name;
  void (*run)(Bytes);
  // Good input, from which bad is made.
  std::vector<std::string> (*seeds)();
};

const std::vector<Entry>& entries();

}  // namespace fuzz
