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
  // All of them, in order.
  void each(const std::function<void(unsigned type, std::span<const std::byte> value)>& see) const;
  // A list of numbers; empty when there is none.
  std::vector<std::uint32_t> words(unsigned type) const;

 private:
  std::span<const std::byte> bytes_;
};

// The header and attributes of a request, as they are put together.
class Request {
 public:
  Request() = default;
  template <typename Header>
  explicit Request(const Header& header) {
    append(&header, sizeof header);
  }
  template <typename Value>
  Request& add(unsigned type, const Value& value) {
    return add_bytes(type, {reinterpret_cast<const std::byte*>(&value), sizeof value});
  }
  Request& add_text(unsigned type, const std::string& text);  // with a zero at its end
  Request& add_bytes(unsigned type, std::span<const std::byte> bytes);
  // Attributes in an attribute.
  Request& nest(unsigned type, const std::function<void(Request&)>& fill);
  // What stands without a type of its own, as the second header in what is told of a pair.
  void append(const void* bytes, std::size_t size);

  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class Netlink {
 public:
  // In the network namespace of the caller, and there for good.
  explicit Netlink(int protocol) : Netlink(socket(protocol)) {}
  explicit Netlink(base::Fd socket);
  static base::Fd socket(int protocol);

  // Sends a request that is answered by a list, and shows each message of it. False: the kernel has no such table
  // (a module that is missing). Other failures are an Error with `what`.
  bool dump(std::uint16_t type, std::span<const std::byte> request,
            const std::function<void(std::span<const std::byte>)>& seen, const std::string& what);
  // The same with the messages as they came, headers included.
  bool list(std::uint16_t type, std::span<const std::byte> request,
            const std::function<void(const nlmsghdr&, std::span<const std::byte>)>& seen, const std::string& what);

  // Sends a request that changes something; 0 or the errno of the kernel's answer.
  int attempt(std::uint16_t type, unsigned flags, std::span<const std::byte> request, const std::string& what);
  // Anything but 0 is an Error, with what the kernel says beyond the number.
  void change(std::uint16_t type, unsigned flags, std::span<const std::byte> request, const std::string& what);

 private:
  void send(std::uint16_t type, unsigned flags, std::span<const std::byte> request, const std::string& what);
  base::Fd fd_;
  std::vector<std::byte> buffer_;
  std::uint32_t sequence_ = 0;
  std::string complaint_;  // the kernel's words for the last failure
};

}  // namespace criu::kernel
