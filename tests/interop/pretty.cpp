// SPDX-License-Identifier: GPL-2.0-only
#include "pretty.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <google/protobuf/descriptor.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <utility>
#include <vector>

namespace interop {

namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::json;

using Flags = std::vector<std::pair<std::uint32_t, const char*>>;

const std::map<std::string, Flags> flag_maps{
    {"mmap.prot", {{1, "PROT_READ"}, {2, "PROT_WRITE"}, {4, "PROT_EXEC"}}},
    {"mmap.flags",
     {{1, "MAP_SHARED"}, {2, "MAP_PRIVATE"}, {8, "MAP_DROPPABLE"}, {0x20, "MAP_ANON"}, {0x100, "MAP_GROWSDOWN"}}},
    {"mmap.status",
     {{1U << 0, "VMA_AREA_REGULAR"},
      {1U << 1, "VMA_AREA_STACK"},
      {1U << 2, "VMA_AREA_VSYSCALL"},
      {1U << 3, "VMA_AREA_VDSO"},
      {1U << 5, "VMA_AREA_HEAP"},
      {1U << 6, "VMA_FILE_PRIVATE"},
      {1U << 7, "VMA_FILE_SHARED"},
      {1U << 8, "VMA_ANON_SHARED"},
      {1U << 9, "VMA_ANON_PRIVATE"},
      {1U << 10, "VMA_AREA_SYSVIPC"},
      {1U << 11, "VMA_AREA_SOCKET"},
      {1U << 12, "VMA_AREA_VVAR"},
      {1U << 13, "VMA_AREA_AIORING"},
      {1U << 14, "VMA_AREA_MEMFD"},
      {1U << 15, "VMA_AREA_SHSTK"},
      {1U << 17, "VMA_AREA_UPROBES"},
      {1U << 31, "VMA_UNSUPP"}}},
    {"rfile.flags",
     {{1, "O_WRONLY"},
      {2, "O_RDWR"},
      {0100, "O_CREAT"},
      {0200, "O_EXCL"},
      {0400, "O_NOCTTY"},
      {01000, "O_TRUNC"},
      {02000, "O_APPEND"},
      {04000, "O_NONBLOCK"},
      {010000, "O_DSYNC"},
      {020000, "FASYNC"},
      {040000, "O_DIRECT"},
      {0100000, "O_LARGEFILE"},
      {0200000, "O_DIRECTORY"},
      {0400000, "O_NOFOLLOW"},
      {01000000, "O_NOATIME"},
      {02000000, "O_CLOEXEC"}}},
    {"pmap.flags", {{1, "PE_PARENT"}, {2, "PE_LAZY"}, {4, "PE_PRESENT"}}},
    {"seals.flags",
     {{1, "F_SEAL_SEAL"}, {2, "F_SEAL_SHRINK"}, {4, "F_SEAL_GROW"}, {8, "F_SEAL_WRITE"}, {16, "F_SEAL_FUTURE_WRITE"}}},
};

// By field name. That a zombie reads 2 and a stopped task "Zombie" is how crit prints the state.
const std::map<std::string, std::map<std::uint64_t, const char*>> dictionaries{
    {"task_state", {{1, "Alive"}, {3, "Zombie"}, {6, "Stopped"}}},
    {"family", {{1, "UNIX"}, {2, "INET"}, {10, "INET6"}, {16, "NETLINK"}, {17, "PACKET"}}},
    {"type", {{1, "STREAM"}, {2, "DGRAM"}, {3, "RAW"}, {5, "SEQPACKET"}, {10, "PACKET"}}},
    {"state",
     {{1, "ESTABLISHED"},
      {2, "SYN_SENT"},
      {3, "SYN_RECV"},
      {4, "FIN_WAIT1"},
      {5, "FIN_WAIT2"},
      {6, "TIME_WAIT"},
      {7, "CLOSE"},
      {8, "CLOSE_WAIT"},
      {9, "LAST_ACK"},
      {10, "LISTEN"}}},
    {"proto", {{0, "IP"}, {6, "TCP"}, {17, "UDP"}, {136, "UDPLITE"}}},
};

std::string flag_names(const std::string& map, std::uint64_t value) {
  std::string out;
  const auto add = [&out](const std::string& name) { out += (out.empty() ? "" : " | ") + name; };
  for (const auto& [bit, name] : flag_maps.at(map)) {
    if ((value & bit) != 0) {
      add(name);
      value &= ~std::uint64_t{bit};
    }
  }
  if (value != 0) {
    add(fmt::format("{:#x}", value));
  }
  return out;
}

std::string quoted_printable(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte > ' ' && byte < 127 && byte != '=' ? std::string(1, c) : fmt::format("={:02X}", byte);
  }
  return out;
}

std::string address(const std::vector<std::uint32_t>& words) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  ::inet_ntop(words.size() == 1 ? AF_INET : AF_INET6, words.data(), text.data(), text.size());
  return text.data();
}

// A number as its field's hint says.
json number(std::uint64_t value, const FieldDescriptor& field, const std::string& hint) {
  if (hint == "hex") {
    return fmt::format("{:#x}", value);
  }
  if (hint == "dev") {
    return fmt::format("{}:{}", value >> 20, value & 0xfffff);
  }
  if (hint == "dev,odev") {
    return fmt::format("{}:{}", (value >> 8) & 0xfff, (value & 0xff) | ((value >> 12) & 0xfff00));
  }
  if (hint.starts_with("flags=")) {
    return flag_names(hint.substr(6), value);
  }
  if (hint.starts_with("dict=")) {
    const auto& names = dictionaries.at(field.name());
    const auto found = names.find(value);
    return found == names.end() ? json(value) : json(found->second);
  }
  return value;
}

}  // namespace

Pretty::Pretty(const std::filesystem::path& field_table) {
  std::ifstream file(field_table);
  for (std::string line; std::getline(file, line);) {
    std::vector<std::string> columns;
    std::istringstream split(line);
    for (std::string column; std::getline(split, column, '\t');) {
      columns.push_back(column);
    }
    if (columns.size() >= 8 && !columns[7].empty()) {
      hints_[columns[1] + "." + columns[5]] = columns[7];
    }
  }
  if (hints_.empty()) {
    throw std::runtime_error("no display hints in " + field_table.string());
  }
}

std::string Pretty::hint_of(const FieldDescriptor& field) const {
  const auto found = hints_.find(field.containing_type()->name() + "." + field.name());
  return found == hints_.end() ? std::string() : found->second;
}

json Pretty::render(const Message& message, const FieldDescriptor& field, int index, const std::string& hint) const {
  const auto& reflection = *message.GetReflection();
  const bool many = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return render(
          many ? reflection.GetRepeatedMessage(message, &field, index) : reflection.GetMessage(message, &field), hint);
    case FieldDescriptor::CPPTYPE_ENUM:
      return (many ? reflection.GetRepeatedEnum(message, &field, index) : reflection.GetEnum(message, &field))->name();
    case FieldDescriptor::CPPTYPE_STRING: {
      const auto bytes =
          many ? reflection.GetRepeatedString(message, &field, index) : reflection.GetString(message, &field);
      if (field.type() == FieldDescriptor::TYPE_STRING) {
        return bytes;
      }
      return hint == "conv=unix_name" ? quoted_printable(bytes) : base64(bytes);
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      return many ? reflection.GetRepeatedBool(message, &field, index) : reflection.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_INT32:
      return many ? reflection.GetRepeatedInt32(message, &field, index) : reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return many ? reflection.GetRepeatedInt64(message, &field, index) : reflection.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32:
      return number(many ? reflection.GetRepeatedUInt32(message, &field, index) : reflection.GetUInt32(message, &field),
                    field, hint);
    case FieldDescriptor::CPPTYPE_UINT64:
      return number(many ? reflection.GetRepeatedUInt64(message, &field, index) : reflection.GetUInt64(message, &field),
                    field, hint);
    default:
      throw std::runtime_error("the format has no field like " + field.full_name());
  }
}

json Pretty::render(const Message& message, const std::string& inherited_hint) const {
  const auto& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  json out = json::object();
  for (const auto* field : fields) {
    const auto own = hint_of(*field);
    const auto& hint = own.empty() ? inherited_hint : own;
    if (!field->is_repeated()) {
      out[field->name()] = render(message, *field, -1, hint);
      continue;
    }
    auto& list = out[field->name()] = json::array();
    if (hint == "ipadd") {
      std::vector<std::uint32_t> words;
      words.reserve(static_cast<std::size_t>(reflection.FieldSize(message, field)));
      for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
        words.push_back(reflection.GetRepeatedUInt32(message, field, i));
      }
      list.push_back(address(words));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      list.push_back(render(message, *field, i, hint));
    }
  }
  return out;
}

std::string base64(const std::string& bytes) {
  static constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  std::size_t column = 0;
  for (std::size_t at = 0; at < bytes.size(); at += 3) {
    std::uint32_t bits = 0;
    const auto part = std::min<std::size_t>(3, bytes.size() - at);
    for (std::size_t i = 0; i < 3; ++i) {
      bits = bits << 8 | (i < part ? static_cast<unsigned char>(bytes[at + i]) : 0U);
    }
    for (std::size_t i = 0; i < 4; ++i) {
      out += i <= part ? digits[bits >> (18 - 6 * i) & 63] : '=';
    }
    column += 4;
    if (column == 76 || at + 3 >= bytes.size()) {
      out += '\n';
      column = 0;
    }
  }
  return out;
}

}  // namespace interop
