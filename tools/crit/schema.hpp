// SPDX-License-Identifier: GPL-2.0-only
// The messages of the image files, from descriptors that are compiled into the program. Enums are plain numbers here,
// so that a value which this version has no name for stays where it is, and strings are plain bytes: the kernel's names
// need not be UTF-8.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/dynamic_message.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "display.hpp"

namespace crit {

class Schema {
 public:
  static const Schema& get();

  std::unique_ptr<google::protobuf::Message> make(const std::string& message) const;
  // The enum whose names a number's values have; null: it is just a number.
  const google::protobuf::EnumDescriptor* names_of(const google::protobuf::FieldDescriptor& field) const;
  bool is_string(const google::protobuf::FieldDescriptor& field) const { return strings_.count(&field) != 0; }
  // How pretty output shows it; null: as it is.
  const Display* display_of(const google::protobuf::FieldDescriptor& field) const;
  const google::protobuf::DescriptorPool& pool() const { return pool_; }

 private:
  Schema();

  google::protobuf::DescriptorPool pool_;
  mutable google::protobuf::DynamicMessageFactory factory_;
  std::unordered_map<const google::protobuf::FieldDescriptor*, const google::protobuf::EnumDescriptor*> enums_;
  std::unordered_set<const google::protobuf::FieldDescriptor*> strings_;
  std::unordered_map<const google::protobuf::FieldDescriptor*, Display> displays_;
};

}  // namespace crit
