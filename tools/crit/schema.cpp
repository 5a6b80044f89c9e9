// SPDX-License-Identifier: GPL-2.0-only
#include "schema.hpp"

#include <google/protobuf/descriptor.pb.h>

#include <map>
#include <stdexcept>
#include <vector>

namespace crit {

namespace {

namespace pb = google::protobuf;

constexpr unsigned char compiled[] = {
#include "images_descriptors.inc"
};

struct Plain {
  std::map<std::string, std::string> enums;  // full name of the field, full name of its enum
  std::vector<std::string> strings;          // full names of fields
};

void make_plain(pb::DescriptorProto& message, const std::string& scope, Plain& found) {
  const auto name = scope + "." + message.name();
  for (auto& field : *message.mutable_field()) {
    if (field.type() == pb::FieldDescriptorProto::TYPE_ENUM) {
      found.enums[name + "." + field.name()] = field.type_name().substr(1);
      field.set_type(pb::FieldDescriptorProto::TYPE_INT32);
      field.clear_type_name();
      field.clear_default_value();
    } else if (field.type() == pb::FieldDescriptorProto::TYPE_STRING) {
      found.strings.push_back(name + "." + field.name());
      field.set_type(pb::FieldDescriptorProto::TYPE_BYTES);
    }
  }
  for (auto& nested : *message.mutable_nested_type()) {
    make_plain(nested, name, found);
  }
}

}  // namespace

Schema::Schema() : factory_(&pool_) {
  pb::FileDescriptorSet set;
  if (!set.ParseFromArray(compiled, sizeof compiled)) {
    throw std::logic_error("the compiled descriptors are broken");
  }
  Plain found;
  for (auto& file : *set.mutable_file()) {
    for (auto& message : *file.mutable_message_type()) {
      make_plain(message, file.package(), found);
    }
    if (pool_.BuildFile(file) == nullptr) {
      throw std::logic_error("the compiled descriptor " + file.name() + " does not fit the others");
    }
  }
  for (const auto& [field, type] : found.enums) {
    enums_[pool_.FindFieldByName(field)] = pool_.FindEnumTypeByName(type);
  }
  for (const auto& field : found.strings) {
    strings_.insert(pool_.FindFieldByName(field));
  }
  for (const auto& [field, display] : displayed_fields()) {
    const auto* descriptor = pool_.FindFieldByName("criu.images." + field);
    if (descriptor == nullptr) {
      throw std::logic_error("no field " + field);
    }
    displays_[descriptor] = display;
  }
}

const Schema& Schema::get() {
  static const Schema one;
  return one;
}

std::unique_ptr<pb::Message> Schema::make(const std::string& message) const {
  const auto* type = pool_.FindMessageTypeByName("criu.images." + message);
  if (type == nullptr) {
    throw std::logic_error("no message " + message);
  }
  return std::unique_ptr<pb::Message>(factory_.GetPrototype(type)->New());
}

const pb::EnumDescriptor* Schema::names_of(const pb::FieldDescriptor& field) const {
  const auto found = enums_.find(&field);
  return found == enums_.end() ? nullptr : found->second;
}

const Display* Schema::display_of(const pb::FieldDescriptor& field) const {
  const auto found = displays_.find(&field);
  return found == displays_.end() ? nullptr : &found->second;
}

}  // namespace crit
