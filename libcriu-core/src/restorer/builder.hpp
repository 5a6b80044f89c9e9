// SPDX-License-Identifier: LGPL-2.1-only
// Lays out the restorer's region: the plan, what it refers to, the stacks, the code.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <vector>

#include "restorer/plan.hpp"

namespace criu::restorer {

// The restorer's code (blob.S).
std::span<const std::byte> code();

// Collects the region's contents before it has an address; references are offsets.
class Builder {
 public:
  Builder() : bytes_(sizeof(Plan)) {}

  Plan& plan() { return *reinterpret_cast<Plan*>(bytes_.data()); }  // valid until the next add

  template <typename T>
  Ref<T> add(std::span<const T> items) {
    if (items.empty()) {
      return {};
    }
    const auto at = room(items.size_bytes(), alignof(T));
    std::memcpy(bytes_.data() + at, items.data(), items.size_bytes());
    return {at};
  }
  template <typename T>
  Ref<T> add(const std::vector<T>& items) {
    return add(std::span<const T>(items));
  }
  // Space without contents (and without cost until it is touched): comes after everything that has contents.
  std::uint64_t contents() const { return bytes_.size(); }
  const std::byte* data() const { return bytes_.data(); }

 private:
  std::uint64_t room(std::size_t size, std::size_t alignment) {
    const auto at = (bytes_.size() + alignment - 1) / alignment * alignment;
    bytes_.resize(at + size);
    return at;
  }

  std::vector<std::byte> bytes_;
};

}  // namespace criu::restorer
