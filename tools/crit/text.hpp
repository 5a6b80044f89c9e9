// SPDX-License-Identifier: GPL-2.0-only
// Bytes as text, the ways that scripts know from Python: base64 in lines, quoted-printable, JSON strings of plain
// ASCII.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace crit {

// 76 characters a line, each line ended. Pieces that are a multiple of `base64_piece` long may be encoded one by one.
constexpr std::size_t base64_piece = 57 * 1024;
std::string base64(std::string_view bytes);

// Decodes what comes in pieces; white space is passed over.
class Base64Decoder {
 public:
  // False: no base64.
  bool add(char character, std::string& to);
  bool complete() const { return count_ == 0; }

 private:
  unsigned bits_ = 0;
  int count_ = 0;    // characters of this group
  int padding_ = 0;  // how many of them were "="
};

std::optional<std::string> from_base64(std::string_view text);

std::string quoted_printable(std::string_view bytes);
std::optional<std::string> from_quoted_printable(std::string_view text);

// As a JSON string, without its quotes. Bytes that are no UTF-8 become \udc80 to \udcff, as Python writes file names.
std::string escaped(std::string_view bytes);
// Appends a code point as UTF-8.
void append_utf8(std::string& to, std::uint32_t point);

// "12B", "1.5KB": as CRIU's tool tells sizes.
std::string short_size(std::uint64_t bytes);

}  // namespace crit
