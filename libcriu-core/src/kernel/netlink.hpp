// SPDX-License-Identifier: LGPL-2.1-only
// A netlink socket that asks one thing after another.
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"

namespace criu::kernel {

// The attributes behind the header of a message.
class Attributes {
 public:
  explicit Attributes(std::span<const std::byte> bytes) : bytes_(bytes) {}
  // The value of the first attribute of this type; nothing when there is none.
  std::optional<std::span<const std::byte>> find(unsigned type) const;
  // The same as a number or structure; nothing also when the kernel sent less.
  template <typename Value>
  std::optional<Value> value(unsigned type) const {
    const auto found = find(type);
    if (!found || found->size() < sizeof(Value)) {
      return std::nullopt;
    }
    Value value{};
    __builtin_memcpy(&value, found->data(), sizeof value);
    return value;
  }
  // A list of numbers; empty when there is none.
  std::vector<std::uint32_t> words(unsigned type) const;

 private:
  std::span<const std::byte> bytes_;
};

class Netlink {
 public:
  // In the network namespace of the caller.
  explicit Netlink(int protocol);

  // Sends a request that is answered by a list, and shows each message of it. False: the kernel has no such table
  // (a module that is missing). Other failures are an Error with `what`.
  bool dump(std::uint16_t type, std::span<const std::byte> request,
            const std::function<void(std::span<const std::byte>)>& seen, const std::string& what);

 private:
  base::Fd fd_;
  std::vector<std::byte> buffer_;
  std::uint32_t sequence_ = 0;
};

}  // namespace criu::kernel
