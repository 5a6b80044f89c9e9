// SPDX-License-Identifier: GPL-2.0-only
// A message as JSON, and back.
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "json.hpp"

namespace crit {

// Fields that are there, by their numbers. What the schema does not know follows as "unknown_fields", base64 of its
// bytes.
Json to_json(const google::protobuf::Message& message, bool pretty);

// `where` is what an Error calls the object. The member "extra" is not the message's.
void from_json(const Json& object, google::protobuf::Message& message, const std::string& where);

}  // namespace crit
