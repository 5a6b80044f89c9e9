// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/buffer.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>

#include "base/error.hpp"

namespace criu::memory {

namespace {

base::Mapping map(std::size_t bytes) {
  base::Mapping mapping(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), bytes);
  if (!mapping) {
    throw base::Error("find memory for", fmt::format("{} bytes of pages", bytes), errno);
  }
  return mapping;
}

}  // namespace

base::Mapping map_buffer(std::size_t bytes) {
  constexpr std::size_t huge = 2 << 20;
  constexpr std::size_t worth_a_huge_page = 256 << 10;
  if (bytes < worth_a_huge_page) {
    return map(bytes);
  }
  const auto size = (bytes + huge - 1) / huge * huge;
  auto* const begin = static_cast<std::byte*>(map(size + huge).release());
  const auto before = (huge - reinterpret_cast<std::uintptr_t>(begin) % huge) % huge;
  base::Mapping(begin, before).reset();
  base::Mapping(begin + before + size, huge - before).reset();
  ::madvise(begin + before, size, MADV_HUGEPAGE);  // a kernel without them has small ones
  return {begin + before, size};
}

}  // namespace criu::memory
