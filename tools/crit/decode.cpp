// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include "base/error.hpp"
#include "codec.hpp"
#include "message.hpp"
#include "schema.hpp"
#include "text.hpp"

namespace crit {

using base::Error;
using google::protobuf::Message;

namespace {

// No message of a sane checkpoint comes near this; protobuf itself ends at 2 GiB.
constexpr std::uint32_t largest_record = 1U << 30;
constexpr std::size_t piece = base64_piece;

std::string short_name(const google::protobuf::MessageLite& record) {
  const auto name = record.GetTypeName();
  return name.substr(name.rfind('.') + 1);
}

class Decoder {
 public:
  // Without a writer nothing is shown, and only entries are counted.
  Decoder(Source& from, JsonWriter* to, const View& view) : from_(from), to_(to), view_(view) {}

  std::uint64_t entries(const Kind& kind) {
    std::uint64_t count = 0;
    auto record = Schema::get().make(kind.message);
    while (read_record(from_, *record)) {
      entry(*record, kind.payload, count == 0);
      if (++count == 1 && kind.further != nullptr) {
        record = Schema::get().make(kind.further);
      }
    }
    return count;
  }

 private:
  void entry(const Message& record, Payload payload, bool first) {
    if (to_ != nullptr) {
      to_->begin('{');
      to_->members(to_json(record, view_.pretty));
    }
    if (payload != Payload::none && !(payload == Payload::ghost && first && number_field(record, "chunks") != 0)) {
      extra(record, payload, first);
    }
    if (to_ != nullptr) {
      to_->end('}');
    }
  }

  void extra(const Message& record, Payload payload, bool first) {
    if (to_ != nullptr) {
      to_->key("extra");
    }
    if (to_ == nullptr || !view_.payload) {
      const auto size = skip(record, payload, first);
      if (to_ != nullptr) {
        to_->value("... <" + short_size(size) + ">");
      }
      return;
    }
    switch (payload) {
      case Payload::tcp:
        to_->begin('{');
        to_->key("inq");
        bytes(number_field(record, "inq_len"));
        to_->key("outq");
        bytes(number_field(record, "outq_len"));
        to_->end('}');
        break;
      case Payload::semaphores:
        semaphores(number_field(record, "nsems"));
        break;
      case Payload::messages:
        messages(number_field(record, "qnum"));
        break;
      default:
        bytes(size_of(record, payload, first));
        from_.skip(padding_of(record, payload));
    }
  }

  // Of one run of bytes; nothing: to the end.
  static std::optional<std::uint64_t> size_of(const Message& record, Payload payload, bool first) {
    switch (payload) {
      case Payload::pipe:
        return number_field(record, "bytes");
      case Payload::packet:
        return number_field(record, "length");
      case Payload::segment:
        return number_field(record, "in_pagemaps") != 0 ? 0 : number_field(record, "size");
      case Payload::bpf_map:
        return number_field(record, "keys_bytes") + number_field(record, "values_bytes");
      case Payload::ghost:
        return first ? std::nullopt : std::optional(number_field(record, "len"));
      case Payload::tcp:
        return number_field(record, "inq_len") + number_field(record, "outq_len");
      case Payload::semaphores:
        return 2 * number_field(record, "nsems");
      default:
        return 0;
    }
  }

  static std::uint64_t padding_of(const Message& record, Payload payload) {
    if (payload == Payload::segment && number_field(record, "in_pagemaps") == 0) {
      return (0 - number_field(record, "size")) % 4;
    }
    return payload == Payload::semaphores ? (0 - 2 * number_field(record, "nsems")) % 8 : 0;
  }

  void bytes(std::optional<std::uint64_t> size) {
    to_->begin_string();
    from_.copy(size, piece, [this](std::string_view part) { to_->piece(base64(part)); });
    to_->end_string();
  }

  void semaphores(std::uint64_t count) {
    to_->begin('[');
    for (std::uint64_t i = 0; i < count; ++i) {
      std::uint16_t value = 0;
      from_.take(&value, sizeof value);
      to_->value(value);
    }
    to_->end(']');
    from_.skip((0 - 2 * count) % 8);
  }

  template <typename Use>
  void each_message(std::uint64_t count, const Use& use) {
    const auto message = Schema::get().make("ipc_msg");
    for (std::uint64_t i = 0; i < count; ++i) {
      if (!read_record(from_, *message)) {
        from_.corrupt(fmt::format("truncated, {} messages wanted and {} there", count, i));
      }
      const auto size = number_field(*message, "msize");
      use(*message, size);
      from_.skip((0 - size) % 8);
    }
  }

  void messages(std::uint64_t count) {
    to_->begin('[');
    each_message(count, [this](const Message& message, std::uint64_t size) {
      to_->value(to_json(message, view_.pretty));
      bytes(size);
    });
    to_->end(']');
  }

  std::uint64_t skip(const Message& record, Payload payload, bool first) {
    std::uint64_t total = 0;
    if (payload == Payload::messages) {
      each_message(number_field(record, "qnum"), [&](const Message&, std::uint64_t size) {
        from_.skip(size);
        total += size;
      });
      return total;
    }
    from_.copy(size_of(record, payload, first), piece, [&total](std::string_view part) { total += part.size(); });
    from_.skip(padding_of(record, payload));
    return total;
  }

  Source& from_;
  JsonWriter* const to_;
  const View view_;
};

}  // namespace

std::uint64_t number_field(const Message& message, const char* name) {
  using google::protobuf::FieldDescriptor;
  const auto* field = message.GetDescriptor()->FindFieldByName(name);
  const auto& reflection = *message.GetReflection();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection.GetBool(message, field) ? 1 : 0;
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection.GetUInt64(message, field);
    default:
      return reflection.GetUInt32(message, field);
  }
}

const Kind& read_magic(Source& from) {
  auto magic = from.u32();
  if (is_family(magic)) {
    magic = from.u32();
  }
  if (const auto* kind = kind_of(magic)) {
    return *kind;
  }
  if (const char* name = other_magic(magic)) {
    throw Error(fmt::format("No handler found for image with magic {}", name), from.name(), 0);
  }
  throw Error(fmt::format("Unknown magic 0x{:08X}.", magic), from.name(), 0,
              "files of raw bytes, like pages-1.img, are no images that can be decoded");
}

bool read_record(Source& from, google::protobuf::MessageLite& record) {
  if (from.at_end()) {
    return false;
  }
  const auto size = from.u32();
  if (size > largest_record) {
    from.corrupt(fmt::format("a record of {} bytes", size));
  }
  const auto bytes = from.bytes(size);
  if (!record.ParsePartialFromString(bytes)) {
    from.corrupt(fmt::format("the record before is no {}", short_name(record)));
  }
  if (!record.IsInitialized()) {
    from.corrupt(
        fmt::format("the record before, a {}, lacks {}", short_name(record), record.InitializationErrorString()));
  }
  return true;
}

void decode(Source& from, Output& to, const View& view) {
  const auto& kind = read_magic(from);
  JsonWriter writer(to, view.pretty);
  writer.begin('{');
  writer.key("magic");
  writer.value(kind.name);
  writer.key("entries");
  writer.begin('[');
  Decoder(from, &writer, view).entries(kind);
  writer.end(']');
  writer.end('}');
}

Info info(Source& from) {
  const auto& kind = read_magic(from);
  const auto count = Decoder(from, nullptr, {}).entries(kind);
  const bool headed = std::string_view(kind.message) == "pagemap_head";
  return {&kind, headed && count > 0 ? count - 1 : count};
}

}  // namespace crit
