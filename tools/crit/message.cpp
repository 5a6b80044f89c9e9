// SPDX-License-Identifier: GPL-2.0-only
#include "message.hpp"

#include <fmt/format.h>
#include <google/protobuf/unknown_field_set.h>

#include <limits>

#include "base/error.hpp"
#include "schema.hpp"
#include "text.hpp"

namespace crit {

namespace {

using base::Error;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr const char* unknown_fields = "unknown_fields";

// ---- to JSON
// ---------------------------------------------------------------------------------------------------------

Json number(std::uint64_t value, bool negative, const FieldDescriptor& field, const Display* display) {
  const auto& schema = Schema::get();
  if (const auto* names = schema.names_of(field)) {
    const auto* known = names->FindValueByNumber(static_cast<int>(value));
    return known != nullptr ? Json(known->name()) : Json(static_cast<std::int64_t>(value));
  }
  if (display != nullptr) {
    switch (display->style) {
      case Display::hex:
        return hex_text(value, negative);
      case Display::flags:
        return flags_text(*display->names, value);
      case Display::device:
      case Display::libc_device:
        return device_text(value, display->style);
      case Display::dictionary:
        for (const auto& [known, name] : *display->names) {
          if (known == value) {
            return name;
          }
        }
        break;
      case Display::address:
      case Display::unix_name:
        break;
    }
  }
  return negative ? Json(static_cast<std::int64_t>(value)) : Json(value);
}

// One value of a field; `index` -1: the only one.
class Value {
 public:
  Value(const Message& message, const FieldDescriptor& field, int index)
      : message_(message), reflection_(*message.GetReflection()), field_(field), index_(index) {}

  const Message& message() const {
    return index_ < 0 ? reflection_.GetMessage(message_, &field_)
                      : reflection_.GetRepeatedMessage(message_, &field_, index_);
  }
  const std::string& text(std::string& storage) const {
    return index_ < 0 ? reflection_.GetStringReference(message_, &field_, &storage)
                      : reflection_.GetRepeatedStringReference(message_, &field_, index_, &storage);
  }
  bool flag() const {
    return index_ < 0 ? reflection_.GetBool(message_, &field_) : reflection_.GetRepeatedBool(message_, &field_, index_);
  }
  std::int64_t i32() const {
    return index_ < 0 ? reflection_.GetInt32(message_, &field_)
                      : reflection_.GetRepeatedInt32(message_, &field_, index_);
  }
  std::int64_t i64() const {
    return index_ < 0 ? reflection_.GetInt64(message_, &field_)
                      : reflection_.GetRepeatedInt64(message_, &field_, index_);
  }
  std::uint64_t u32() const {
    return index_ < 0 ? reflection_.GetUInt32(message_, &field_)
                      : reflection_.GetRepeatedUInt32(message_, &field_, index_);
  }
  std::uint64_t u64() const {
    return index_ < 0 ? reflection_.GetUInt64(message_, &field_)
                      : reflection_.GetRepeatedUInt64(message_, &field_, index_);
  }

 private:
  const Message& message_;
  const google::protobuf::Reflection& reflection_;
  const FieldDescriptor& field_;
  const int index_;
};

Json object(const Message& message, bool pretty, const Display* inherited);

Json signed_number(std::int64_t value, const FieldDescriptor& field, const Display* display) {
  return number(static_cast<std::uint64_t>(value), value < 0, field, display);
}

Json one(const Value& value, const FieldDescriptor& field, bool pretty, const Display* display) {
  std::string storage;
  // Text and names are the same in both forms; numbers are spelled out in pretty output alone.
  const auto* shown = pretty ? display : nullptr;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return object(value.message(), pretty, display);
    case FieldDescriptor::CPPTYPE_STRING: {
      const auto& text = value.text(storage);
      if (Schema::get().is_string(field)) {
        return text;
      }
      return display != nullptr && display->style == Display::unix_name ? quoted_printable(text) : base64(text);
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      return value.flag();
    case FieldDescriptor::CPPTYPE_INT32:
      return signed_number(value.i32(), field, shown);
    case FieldDescriptor::CPPTYPE_INT64:
      return signed_number(value.i64(), field, shown);
    case FieldDescriptor::CPPTYPE_UINT32:
      return number(value.u32(), false, field, shown);
    case FieldDescriptor::CPPTYPE_UINT64:
      return number(value.u64(), false, field, shown);
    default:
      throw std::logic_error("the format has no field like " + field.full_name());
  }
}

Json many(const Message& message, const FieldDescriptor& field, bool pretty, const Display* display) {
  Json list = Json::array();
  const int count = message.GetReflection()->FieldSize(message, &field);
  if (pretty && display != nullptr && display->style == Display::address && (count == 1 || count == 4)) {
    std::vector<std::uint32_t> words;
    words.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) {
      words.push_back(static_cast<std::uint32_t>(Value(message, field, i).u32()));
    }
    list.push_back(address_text(words));
    return list;
  }
  for (int i = 0; i < count; ++i) {
    list.push_back(one(Value(message, field, i), field, pretty, display));
  }
  return list;
}

Json object(const Message& message, bool pretty, const Display* inherited) {
  const auto& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  Json all = Json::object();
  for (const auto* field : fields) {
    const auto* own = Schema::get().display_of(*field);
    const auto* display = own != nullptr ? own : inherited;
    all[field->name()] = field->is_repeated() ? many(message, *field, pretty, display)
                                              : one(Value(message, *field, -1), *field, pretty, display);
  }
  const auto& unknown = reflection.GetUnknownFields(message);
  if (!unknown.empty()) {
    std::string bytes;
    unknown.SerializeToString(&bytes);
    all[unknown_fields] = base64(bytes);
  }
  return all;
}

// ---- from JSON
// -------------------------------------------------------------------------------------------------------

[[noreturn]] void wrong(const std::string& where, const std::string& why) {
  throw Error("encode", fmt::format("{}: {}", where, why), 0);
}

// What the value of a field may be, as a number.
Number read_number_of(const Json& value, const FieldDescriptor& field, const std::string& where) {
  if (value.is_number_unsigned()) {
    return {value.get<std::uint64_t>()};
  }
  if (value.is_number_integer()) {
    const auto negative = value.get<std::int64_t>();
    return {0 - static_cast<std::uint64_t>(negative), true};
  }
  if (!value.is_string()) {
    wrong(where, "a number expected");
  }
  const auto& text = value.get_ref<const std::string&>();
  const auto& schema = Schema::get();
  if (const auto* names = schema.names_of(field)) {
    if (const auto* known = names->FindValueByName(text)) {
      const auto number = known->number();
      return {number < 0 ? 0 - static_cast<std::uint64_t>(number) : static_cast<std::uint64_t>(number), number < 0};
    }
  }
  if (const auto number = read_displayed(text, schema.display_of(field))) {
    return *number;
  }
  wrong(where, fmt::format("\"{}\" is neither a number nor a name of {}", escaped(text), field.name()));
}

template <typename Integer>
Integer in_range(const Number& number, const std::string& where) {
  using Limits = std::numeric_limits<Integer>;
  const auto most = number.negative ? (Limits::is_signed ? static_cast<std::uint64_t>(Limits::max()) + 1 : 0)
                                    : static_cast<std::uint64_t>(Limits::max());
  if (number.magnitude > most) {
    wrong(where, fmt::format("{}{} does not fit", number.negative ? "-" : "", number.magnitude));
  }
  return static_cast<Integer>(number.negative ? 0 - number.magnitude : number.magnitude);
}

std::string read_text(const Json& value, const FieldDescriptor& field, const std::string& where) {
  if (!value.is_string()) {
    wrong(where, "a string expected");
  }
  const auto& text = value.get_ref<const std::string&>();
  if (Schema::get().is_string(field)) {
    return text;
  }
  const auto* display = Schema::get().display_of(field);
  if (display != nullptr && display->style == Display::unix_name) {
    if (auto bytes = from_quoted_printable(text)) {
      return *std::move(bytes);
    }
    wrong(where, "no quoted-printable text");
  }
  if (auto bytes = from_base64(text)) {
    return *std::move(bytes);
  }
  wrong(where, "no base64");
}

// Puts one value into a field: sets it, or adds it to a repeated one.
class Setter {
 public:
  Setter(Message& message, const FieldDescriptor& field)
      : message_(message), reflection_(*message.GetReflection()), field_(field) {}

  void put(const Json& value, const std::string& where) {
    switch (field_.cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE:
        from_json(value,
                  *(field_.is_repeated() ? reflection_.AddMessage(&message_, &field_)
                                         : reflection_.MutableMessage(&message_, &field_)),
                  where);
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        call(&Reflection::SetString, &Reflection::AddString, read_text(value, field_, where));
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        call(&Reflection::SetBool, &Reflection::AddBool, flag(value, where));
        break;
      case FieldDescriptor::CPPTYPE_INT32:
        call(&Reflection::SetInt32, &Reflection::AddInt32, number<std::int32_t>(value, where));
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        call(&Reflection::SetInt64, &Reflection::AddInt64, number<std::int64_t>(value, where));
        break;
      case FieldDescriptor::CPPTYPE_UINT32:
        call(&Reflection::SetUInt32, &Reflection::AddUInt32, number<std::uint32_t>(value, where));
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        call(&Reflection::SetUInt64, &Reflection::AddUInt64, number<std::uint64_t>(value, where));
        break;
      default:
        throw std::logic_error("the format has no field like " + field_.full_name());
    }
  }

 private:
  using Reflection = google::protobuf::Reflection;

  template <typename Integer>
  Integer number(const Json& value, const std::string& where) const {
    return in_range<Integer>(read_number_of(value, field_, where), where);
  }
  bool flag(const Json& value, const std::string& where) const {
    return value.is_boolean() ? value.get<bool>() : read_number_of(value, field_, where).magnitude != 0;
  }
  template <typename Set, typename Add, typename Argument>
  void call(Set set, Add add, Argument argument) {
    if (field_.is_repeated()) {
      (reflection_.*add)(&message_, &field_, std::move(argument));
    } else {
      (reflection_.*set)(&message_, &field_, std::move(argument));
    }
  }

  Message& message_;
  const Reflection& reflection_;
  const FieldDescriptor& field_;
};

void put_list(const Json& list, Message& message, const FieldDescriptor& field, const std::string& where) {
  if (!list.is_array()) {
    wrong(where, "a list expected");
  }
  const auto* display = Schema::get().display_of(field);
  Setter setter(message, field);
  for (std::size_t i = 0; i < list.size(); ++i) {
    const auto& value = list[i];
    if (display != nullptr && display->style == Display::address && value.is_string()) {
      if (const auto words = read_address(value.get_ref<const std::string&>())) {
        for (const auto word : *words) {
          message.GetReflection()->AddUInt32(&message, &field, word);
        }
        continue;
      }
    }
    setter.put(value, fmt::format("{}[{}]", where, i));
  }
}

}  // namespace

Json to_json(const Message& message, bool pretty) { return object(message, pretty, nullptr); }

void from_json(const Json& object, Message& message, const std::string& where) {
  if (!object.is_object()) {
    wrong(where, "an object expected");
  }
  for (const auto& [name, value] : object.items()) {
    const auto place = where + "." + escaped(name);
    if (const auto* field = message.GetDescriptor()->FindFieldByName(name)) {
      if (field->is_repeated()) {
        put_list(value, message, *field, place);
      } else {
        Setter(message, *field).put(value, place);
      }
    } else if (name == unknown_fields) {
      const auto bytes = value.is_string() ? from_base64(value.get_ref<const std::string&>()) : std::nullopt;
      if (!bytes || !message.GetReflection()->MutableUnknownFields(&message)->ParseFromString(*bytes)) {
        wrong(place, "no base64 of protobuf fields");
      }
    } else if (name != "extra") {
      wrong(place, fmt::format("{} has no such field", message.GetDescriptor()->name()));
    }
  }
}

}  // namespace crit
