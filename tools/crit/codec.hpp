// SPDX-License-Identifier: GPL-2.0-only
// Whole images as JSON, and back; entry by entry, in bounded memory.
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "json.hpp"
#include "kinds.hpp"
#include "output.hpp"
#include "source.hpp"

namespace crit {

struct View {
  bool pretty = false;
  bool payload = true;  // else their sizes are told
};

// Reads the magics.
const Kind& read_magic(Source& from);
// The next record; false exactly at the end of the input.
bool read_record(Source& from, google::protobuf::MessageLite& record);
// A field that is a number, by its name.
std::uint64_t number_field(const google::protobuf::Message& message, const char* name);

void decode(Source& from, Output& to, const View& view);
void encode(Source& from, Output& to);

struct Info {
  const Kind* kind;
  std::uint64_t count;  // of the head of pagemaps apart
};
Info info(Source& from);

}  // namespace crit
