// SPDX-License-Identifier: GPL-2.0-only
#include "text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace crit {

namespace {

constexpr std::string_view digits64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr std::size_t line_bytes = 57;

int value64(char c) {
  if (c >= 'A' && c <= 'Z') {
    return c - 'A';
  }
  if (c >= 'a' && c <= 'z') {
    return c - 'a' + 26;
  }
  if (c >= '0' && c <= '9') {
    return c - '0' + 52;
  }
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') {
    return c - '0';
  }
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

// The code point at the front of the text, and its length; length 0: no UTF-8.
struct Decoded {
  std::uint32_t point = 0;
  std::size_t length = 0;
};

Decoded first_point(std::string_view text) {
  const auto byte = [&text](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) {
    return {lead, 1};
  }
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) {
    return {};
  }
  std::uint32_t point = lead & (0xffU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) {
      return {};
    }
    point = point << 6 | (byte(i) & 0x3f);
  }
  const bool overlong = point < (length == 2 ? 0x80U : length == 3 ? 0x800U : 0x10000U);
  const bool surrogate = point >= 0xd800 && point < 0xe000;
  return overlong || surrogate || point > 0x10ffff ? Decoded{} : Decoded{point, length};
}

}  // namespace

std::string base64(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4 + bytes.size() / line_bytes + 1);
  for (std::size_t line = 0; line < bytes.size(); line += line_bytes) {
    const auto part = bytes.substr(line, line_bytes);
    for (std::size_t at = 0; at < part.size(); at += 3) {
      const auto there = std::min<std::size_t>(3, part.size() - at);
      std::uint32_t bits = 0;
      for (std::size_t i = 0; i < 3; ++i) {
        bits = bits << 8 | (i < there ? static_cast<unsigned char>(part[at + i]) : 0U);
      }
      for (std::size_t i = 0; i < 4; ++i) {
        out += i <= there ? digits64[bits >> (18 - 6 * i) & 63] : '=';
      }
    }
    out += '\n';
  }
  return out;
}

bool Base64Decoder::add(char c, std::string& to) {
  if (c == '\n' || c == '\r' || c == ' ' || c == '\t') {
    return true;
  }
  const int value = c == '=' ? 0 : value64(c);
  if (value < 0 || (c == '=' && count_ < 2) || (c != '=' && padding_ > 0)) {
    return false;
  }
  padding_ += c == '=' ? 1 : 0;
  bits_ = bits_ << 6 | static_cast<unsigned>(value);
  if (++count_ == 4) {
    for (int i = 0; i < 3 - padding_; ++i) {
      to += static_cast<char>(bits_ >> (16 - 8 * i) & 0xff);
    }
    // After padding comes nothing more but what is concatenated, which Python reads too.
    bits_ = 0;
    count_ = padding_ = 0;
  }
  return true;
}

std::optional<std::string> from_base64(std::string_view text) {
  Base64Decoder decoder;
  std::string out;
  for (const char c : text) {
    if (!decoder.add(c, out)) {
      return std::nullopt;
    }
  }
  return decoder.complete() ? std::optional(std::move(out)) : std::nullopt;
}

std::string quoted_printable(std::string_view bytes) {
  constexpr std::size_t longest_line = 76;
  std::string out;
  std::size_t column = 0;
  const auto room_for = [&](std::size_t characters) {
    if (column + characters >= longest_line) {
      out += "=\n";
      column = 0;
    }
    column += characters;
  };
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const auto byte = static_cast<unsigned char>(bytes[at]);
    const bool last = at + 1 == bytes.size();
    const bool blank = byte == ' ' || byte == '\t';
    const bool lone_dot = byte == '.' && column == 0 && (last || bytes[at + 1] == 0);
    if (byte > 126 || byte == '=' || lone_dot || (blank ? last : byte <= ' ')) {
      room_for(3);
      out += fmt::format("={:02X}", byte);
    } else {
      room_for(last ? 0 : 1);
      column += last ? 1 : 0;
      out += bytes[at];
    }
  }
  return out;
}

std::optional<std::string> from_quoted_printable(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '=') {
      out += text[at];
      continue;
    }
    if (at + 1 < text.size() && text[at + 1] == '\n') {
      ++at;
      continue;
    }
    const int high = at + 2 < text.size() ? hex_digit(text[at + 1]) : -1;
    const int low = high >= 0 ? hex_digit(text[at + 2]) : -1;
    if (low < 0) {
      return std::nullopt;
    }
    out += static_cast<char>(high << 4 | low);
    at += 2;
  }
  return out;
}

std::string escaped(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  while (!bytes.empty()) {
    const auto [point, length] = first_point(bytes);
    if (length == 0) {
      out += fmt::format("\\udc{:02x}", static_cast<unsigned char>(bytes[0]));
      bytes.remove_prefix(1);
      continue;
    }
    static constexpr std::string_view named = "\"\"\\\\\bb\ff\nn\rr\tt";  // pairs: what is meant, its letter
    const auto short_form = point < 0x80 ? named.find(static_cast<char>(point)) : named.npos;
    if (short_form != named.npos && short_form % 2 == 0) {
      out += '\\';
      out += named[short_form + 1];
    } else if (point >= ' ' && point < 0x7f) {
      out += static_cast<char>(point);
    } else if (point < 0x10000) {
      out += fmt::format("\\u{:04x}", point);
    } else {
      out +=
          fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + ((point - 0x10000) >> 10), 0xdc00 + ((point - 0x10000) & 0x3ff));
    }
    bytes.remove_prefix(length);
  }
  return out;
}

void append_utf8(std::string& to, std::uint32_t point) {
  if (point < 0x80) {
    to += static_cast<char>(point);
    return;
  }
  const int more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  static constexpr unsigned char leads[] = {0, 0xc0, 0xe0, 0xf0};
  to += static_cast<char>(leads[more] | point >> (6 * more));
  for (int i = more - 1; i >= 0; --i) {
    to += static_cast<char>(0x80 | (point >> (6 * i) & 0x3f));
  }
}

std::string short_size(std::uint64_t bytes) {
  auto number = static_cast<double>(bytes);
  static constexpr const char* units[] = {"", "K", "M", "G", "T", "P", "E"};
  std::size_t unit = 0;
  for (; number >= 1024; ++unit) {
    number /= 1024;
  }
  const bool whole = number == static_cast<double>(static_cast<std::uint64_t>(number));
  return whole ? fmt::format("{:.0f}{}B", number, units[unit]) : fmt::format("{:.1f}{}B", number, units[unit]);
}

}  // namespace crit
