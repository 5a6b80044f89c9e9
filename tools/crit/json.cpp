// SPDX-License-Identifier: GPL-2.0-only
#include "json.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "base/error.hpp"
#include "text.hpp"

namespace crit {

using base::Error;

namespace {

constexpr int deepest = 200;
constexpr std::size_t most_members = 1000;
constexpr std::size_t small_string = 64 * 1024;
constexpr std::size_t spool_memory = 1024 * 1024;

}  // namespace

// ---- writing
// ---------------------------------------------------------------------------------------------------------

void JsonWriter::next() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (filled_.empty()) {
    return;
  }
  if (filled_.back()) {
    to_.write(pretty_ ? "," : ", ");
  }
  filled_.back() = true;
  if (pretty_) {
    to_.put('\n');
    to_.write(std::string(4 * filled_.size(), ' '));
  }
}

void JsonWriter::begin(char bracket) {
  next();
  to_.put(bracket);
  filled_.push_back(false);
}

void JsonWriter::end(char bracket) {
  const bool filled = filled_.back();
  filled_.pop_back();
  if (filled && pretty_) {
    to_.put('\n');
    to_.write(std::string(4 * filled_.size(), ' '));
  }
  to_.put(bracket);
}

void JsonWriter::key(std::string_view name) {
  next();
  to_.write("\"" + escaped(name) + "\": ");
  after_key_ = true;
}

void JsonWriter::begin_string() {
  next();
  to_.put('"');
}

void JsonWriter::piece(std::string_view text) { to_.write(escaped(text)); }

void JsonWriter::end_string() { to_.put('"'); }

void JsonWriter::members(const Json& object) {
  for (const auto& [name, member] : object.items()) {
    key(name);
    value(member);
  }
}

void JsonWriter::value(const Json& value) {
  switch (value.type()) {
    case Json::value_t::object:
      begin('{');
      members(value);
      end('}');
      break;
    case Json::value_t::array:
      begin('[');
      for (const auto& element : value) {
        this->value(element);
      }
      end(']');
      break;
    case Json::value_t::string:
      begin_string();
      piece(value.get_ref<const std::string&>());
      end_string();
      break;
    default:
      next();
      to_.write(value.dump());
  }
}

// ---- the spool
// -------------------------------------------------------------------------------------------------------

void Spool::add(Range& range, std::string_view bytes) {
  memory_ += bytes;
  size_ += bytes.size();
  range.size += bytes.size();
  if (memory_.size() >= spool_memory) {
    flush();
  }
}

void Spool::flush() {
  if (!fd_) {
    const auto directory = std::filesystem::temp_directory_path().string();
    fd_ = base::Fd(base::check(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600),
                               "create a temporary file", directory, "TMPDIR says where"));
  }
  for (std::size_t done = 0; done < memory_.size();) {
    const auto at = static_cast<off_t>(size_ - memory_.size() + done);
    done += static_cast<std::size_t>(base::check(::pwrite(fd_.get(), memory_.data() + done, memory_.size() - done, at),
                                                 "write", "a temporary file"));
  }
  memory_.clear();
}

void Spool::copy(Range range, const Source::Piece& to) const {
  const auto on_disk = size_ - memory_.size();
  std::string piece;
  while (range.size > 0) {
    if (range.at >= on_disk) {
      to(std::string_view(memory_).substr(static_cast<std::size_t>(range.at - on_disk),
                                          static_cast<std::size_t>(range.size)));
      return;
    }
    piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>({range.size, on_disk - range.at, small_string})));
    const auto got = static_cast<std::size_t>(base::check(
        ::pread(fd_.get(), piece.data(), piece.size(), static_cast<off_t>(range.at)), "read", "a temporary file"));
    if (got == 0) {
      throw Error("read", "a temporary file: it became shorter", 0);
    }
    to(std::string_view(piece).substr(0, got));
    range.at += got;
    range.size -= got;
  }
}

void Spool::clear() {
  if (fd_) {
    base::check(::ftruncate(fd_.get(), 0), "truncate", "a temporary file");
  }
  memory_.clear();
  size_ = 0;
}

const Spool::Range* spooled(const Json& value, Spool::Range& storage) {
  if (!value.is_binary()) {
    return nullptr;
  }
  std::memcpy(&storage, value.get_binary().data(), sizeof storage);
  return &storage;
}

// ---- reading
// ---------------------------------------------------------------------------------------------------------

int JsonReader::space() {
  while (from_.peek() == ' ' || from_.peek() == '\n' || from_.peek() == '\r' || from_.peek() == '\t') {
    from_.get();
  }
  return from_.peek();
}

void JsonReader::expect(char wanted) {
  if (space() != wanted) {
    from_.corrupt(fmt::format("this is no JSON of an image: '{}' expected", wanted));
  }
  from_.get();
}

void JsonReader::word(std::string_view rest) {
  for (const char c : rest) {
    if (from_.get() != c) {
      from_.corrupt("this is no JSON: true, false or null expected");
    }
  }
}

void JsonReader::end() {
  if (space() >= 0) {
    from_.corrupt("something stands behind the JSON document");
  }
}

void JsonReader::object(const std::function<void(const std::string&)>& member) {
  expect('{');
  if (space() == '}') {
    from_.get();
    return;
  }
  for (;;) {
    space();
    const auto key = string();
    expect(':');
    space();
    member(key);
    if (space() == '}') {
      from_.get();
      return;
    }
    expect(',');
  }
}

void JsonReader::array(const std::function<void()>& element) {
  expect('[');
  if (space() == ']') {
    from_.get();
    return;
  }
  for (;;) {
    space();
    element();
    if (space() == ']') {
      from_.get();
      return;
    }
    expect(',');
  }
}

std::uint32_t JsonReader::hex4() {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const char digit = static_cast<char>(from_.get());
    std::uint32_t one = 0;
    if (std::from_chars(&digit, &digit + 1, one, 16).ptr == &digit) {
      from_.corrupt("\\u needs four hexadecimal digits");
    }
    value = value << 4 | one;
  }
  return value;
}

bool JsonReader::character(std::string& to) {
  const int c = from_.get();
  if (c == '"') {
    return false;
  }
  if (c < 0x20) {
    from_.corrupt(c < 0 ? "a string does not end" : "a control character in a string");
  }
  if (c != '\\') {
    to += static_cast<char>(c);
    return true;
  }
  static constexpr std::string_view letters = "\"\\/bfnrt";
  static constexpr std::string_view meant = "\"\\/\b\f\n\r\t";
  const int letter = from_.get();
  if (letter != 'u') {
    const auto at = letter < 0 ? letters.npos : letters.find(static_cast<char>(letter));
    if (at == letters.npos) {
      from_.corrupt("an escape that JSON does not have");
    }
    to += meant[at];
    return true;
  }
  auto point = hex4();
  if (point >= 0xd800 && point < 0xdc00) {
    word("\\u");
    const auto low = hex4();
    if (low < 0xdc00 || low >= 0xe000) {
      from_.corrupt("half of a surrogate pair");
    }
    point = 0x10000 + ((point & 0x3ff) << 10) + (low & 0x3ff);
  } else if (point >= 0xdc80 && point < 0xdd00) {
    to += static_cast<char>(point & 0xff);  // a byte that was no UTF-8
    return true;
  } else if (point >= 0xdc00 && point < 0xe000) {
    from_.corrupt("half of a surrogate pair");
  }
  append_utf8(to, point);
  return true;
}

std::string JsonReader::string() {
  expect('"');
  std::string text;
  while (character(text)) {
  }
  return text;
}

Json JsonReader::spooled_string(Spool& spool) {
  expect('"');
  std::string text;
  while (text.size() < small_string) {
    if (!character(text)) {
      return text;
    }
  }
  Base64Decoder decoder;
  auto range = spool.begin();
  std::string bytes;
  do {
    for (const char c : text) {
      if (!decoder.add(c, bytes)) {
        from_.corrupt("a long string that is no base64");
      }
    }
    text.clear();
    if (bytes.size() >= small_string) {
      spool.add(range, bytes);
      bytes.clear();
    }
  } while (character(text));
  spool.add(range, bytes);
  if (!decoder.complete()) {
    from_.corrupt("base64 that breaks off");
  }
  std::vector<std::uint8_t> place(sizeof range);
  std::memcpy(place.data(), &range, sizeof range);
  return Json::binary(std::move(place));
}

Json JsonReader::number() {
  std::string text;
  for (int c = from_.peek(); c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E' || (c >= '0' && c <= '9');
       c = from_.peek()) {
    text += static_cast<char>(from_.get());
    if (text.size() > 64) {
      from_.corrupt("a number of more than 64 digits");
    }
  }
  const auto whole = [&text](auto& into) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), into);
    return error == std::errc() && end == text.data() + text.size();
  };
  std::uint64_t positive = 0;
  std::int64_t negative = 0;
  if (whole(positive)) {
    return positive;
  }
  if (whole(negative)) {
    return negative;
  }
  from_.corrupt(text.empty() ? "this is no JSON: a value expected" : text + " is not a whole number of 64 bits");
}

void JsonReader::add_member(Json& object, const std::string& key, Json value) {
  if (object.size() == most_members) {
    from_.corrupt(fmt::format("an object with more than {} members", most_members));
  }
  if (!object.emplace(key, std::move(value)).second) {
    from_.corrupt("\"" + escaped(key) + "\" stands there twice");
  }
}

Json JsonReader::entry(Spool& spool) {
  Json all = Json::object();
  object([&](const std::string& key) { add_member(all, key, value(key == "extra" ? &spool : nullptr, 1)); });
  return all;
}

Json JsonReader::value(Spool* spool, int depth) {
  if (depth > deepest) {
    from_.corrupt("nested too deeply");
  }
  switch (space()) {
    case '{': {
      Json all = Json::object();
      object([&](const std::string& key) { add_member(all, key, value(spool, depth + 1)); });
      return all;
    }
    case '[': {
      Json all = Json::array();
      array([&] { all.push_back(value(spool, depth + 1)); });
      return all;
    }
    case '"':
      return spool != nullptr ? spooled_string(*spool) : Json(string());
    case 't':
      word("true");
      return true;
    case 'f':
      word("false");
      return false;
    case 'n':
      word("null");
      return nullptr;
    default:
      return number();
  }
}

}  // namespace crit
