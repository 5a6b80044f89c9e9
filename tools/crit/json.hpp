// SPDX-License-Identifier: GPL-2.0-only
// JSON as Python prints it, written and read piece by piece, so that no document has to fit into memory. One entry of
// it at a time does, as a value of nlohmann-json.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "output.hpp"
#include "source.hpp"

namespace crit {

using Json = nlohmann::ordered_json;

class JsonWriter {
 public:
  JsonWriter(Output& to, bool pretty) : to_(to), pretty_(pretty) {}

  void begin(char bracket);
  void end(char bracket);
  void key(std::string_view name);
  void value(const Json& value);
  // A string in pieces; a piece must not end in the middle of a character.
  void begin_string();
  void piece(std::string_view text);
  void end_string();
  // All members of an object, which the caller has begun.
  void members(const Json& object);

 private:
  void next();

  Output& to_;
  const bool pretty_;
  bool after_key_ = false;
  std::vector<bool> filled_;  // by depth: something is in there already
};

// A file without a name, for what may be too large for memory.
class Spool {
 public:
  // Where the bytes went.
  struct Range {
    std::uint64_t at = 0, size = 0;
  };
  Range begin() const { return {size_, 0}; }
  void add(Range& range, std::string_view bytes);
  void copy(Range range, const Source::Piece& to) const;
  void clear();

 private:
  void flush();

  base::Fd fd_;
  std::string memory_;
  std::uint64_t size_ = 0;
};

class JsonReader {
 public:
  explicit JsonReader(Source& from) : from_(from) {}

  // Calls for each member; the callee must read its value.
  void object(const std::function<void(const std::string& key)>& member);
  void array(const std::function<void()>& element);
  std::string string();
  // An object whose member "extra" stands for raw bytes: strings there are base64, and the large ones are decoded into
  // the spool and become what `spooled` tells.
  Json entry(Spool& spool);
  // Nothing but white space is left, or else an Error.
  void end();

 private:
  Json value(Spool* spool, int depth);
  void add_member(Json& object, const std::string& key, Json value);
  Json number();
  Json spooled_string(Spool& spool);
  int space();
  void expect(char wanted);
  void word(std::string_view rest);
  // One character of a string, as UTF-8; false: the string's end.
  bool character(std::string& to);
  std::uint32_t hex4();

  Source& from_;
};

// Whether a value is a string that went to the spool, and where it is.
const Spool::Range* spooled(const Json& value, Spool::Range& storage);

}  // namespace crit
