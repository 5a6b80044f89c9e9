// SPDX-License-Identifier: GPL-2.0-only
// Renders a message as `crit decode --pretty` of CRIU 4.2 does, from nothing but its descriptor and the display hints
// of the field table, so that what we decoded can be compared with what CRIU's own tool understood.
#pragma once

#include <google/protobuf/message.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace interop {

class Pretty {
 public:
  // Reads the `display` column of spec/image-fields.tsv.
  explicit Pretty(const std::filesystem::path& field_table);

  nlohmann::json render(const google::protobuf::Message& message) const { return render(message, {}); }

 private:
  nlohmann::json render(const google::protobuf::Message& message, const std::string& inherited_hint) const;
  nlohmann::json render(const google::protobuf::Message& message, const google::protobuf::FieldDescriptor& field,
                        int index, const std::string& hint) const;
  std::string hint_of(const google::protobuf::FieldDescriptor& field) const;

  std::map<std::string, std::string> hints_;  // "vma_entry.prot" → "flags=mmap.prot"
};

// As crit prints bytes: with a newline after every 76 characters and at the end.
std::string base64(const std::string& bytes);

}  // namespace interop
