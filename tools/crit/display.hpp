// SPDX-License-Identifier: GPL-2.0-only
// How fields look in pretty output, and how that is read again.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace crit {

using Names = std::vector<std::pair<std::uint64_t, const char*>>;

struct Display {
  enum Style {
    hex,
    address,  // words of an IPv4 or IPv6 address
    device,   // as the kernel packs it
    libc_device,
    flags,       // names of bits
    dictionary,  // names of values
    unix_name    // bytes, as quoted-printable text
  };
  Style style = hex;
  const Names* names = nullptr;
};

// By "message.field".
const std::map<std::string, Display>& displayed_fields();

std::string hex_text(std::uint64_t value, bool negative = false);
std::string flags_text(const Names& names, std::uint64_t value);
std::string device_text(std::uint64_t value, Display::Style style);
std::string address_text(const std::vector<std::uint32_t>& words);

// The number that a text stands for; the sign apart. As Python's int(x, 0) reads it.
struct Number {
  std::uint64_t magnitude = 0;
  bool negative = false;
};
std::optional<Number> read_number(std::string_view text);
// A number, or what the display makes of one.
std::optional<Number> read_displayed(std::string_view text, const Display* display);
std::optional<std::vector<std::uint32_t>> read_address(const std::string& text);

}  // namespace crit
