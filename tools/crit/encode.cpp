// SPDX-License-Identifier: GPL-2.0-only
#include <fmt/format.h>

#include <limits>
#include <vector>

#include "base/error.hpp"
#include "codec.hpp"
#include "message.hpp"
#include "schema.hpp"
#include "text.hpp"

namespace crit {

using base::Error;
using google::protobuf::Message;

namespace {

class Encoder {
 public:
  Encoder(Output& to, const Spool& spool) : to_(to), spool_(spool) {}

  void begin(const std::string& name) {
    kind_ = kind_of(name);
    if (kind_ == nullptr) {
      throw Error("encode", "no image is called \"" + escaped(name) + "\"", 0);
    }
    if (kind_->family != Family::none) {
      to_.u32(static_cast<std::uint32_t>(kind_->family));
    }
    to_.u32(kind_->magic);
    record_ = Schema::get().make(kind_->message);
  }
  bool begun() const { return kind_ != nullptr; }

  void entry(const Json& entry) {
    const auto where = fmt::format("entries[{}]", count_);
    put_record(entry, *record_, where);
    const auto extra = entry.find("extra");
    payload(extra == entry.end() ? Json() : *extra, where + ".extra");
    if (++count_ == 1 && kind_->further != nullptr) {
      record_ = Schema::get().make(kind_->further);
    }
  }

 private:
  [[noreturn]] static void wrong(const std::string& where, const std::string& why) {
    throw Error("encode", where + ": " + why, 0);
  }

  void put_record(const Json& object, Message& record, const std::string& where) {
    record.Clear();
    from_json(object, record, where);
    if (!record.IsInitialized()) {
      wrong(where, "missing: " + record.InitializationErrorString());
    }
    const auto bytes = record.SerializeAsString();
    to_.u32(static_cast<std::uint32_t>(bytes.size()));
    to_.write(bytes);
  }

  void payload(const Json& extra, const std::string& where) {
    const auto number = [this](const char* field) { return number_field(*record_, field); };
    switch (kind_->payload) {
      case Payload::none:
        if (!extra.is_null()) {
          wrong(where, fmt::format("{} has no bytes of its own", kind_->name));
        }
        break;
      case Payload::pipe:
        bytes(extra, number("bytes"), where);
        break;
      case Payload::packet:
        bytes(extra, number("length"), where);
        break;
      case Payload::bpf_map:
        bytes(extra, number("keys_bytes") + number("values_bytes"), where);
        break;
      case Payload::tcp:
        bytes(member(extra, "inq", where), number("inq_len"), where + ".inq");
        bytes(member(extra, "outq", where), number("outq_len"), where + ".outq");
        break;
      case Payload::segment: {
        const auto size = number("in_pagemaps") != 0 ? 0 : number("size");
        bytes(extra, size, where);
        pad((0 - size) % 4);
        break;
      }
      case Payload::ghost:
        if (count_ > 0) {
          bytes(extra, number("len"), where);
        } else {
          bytes(extra, number("chunks") != 0 ? std::optional<std::uint64_t>(0) : std::nullopt, where);
        }
        break;
      case Payload::semaphores:
        semaphores(extra, number("nsems"), where);
        break;
      case Payload::messages:
        messages(extra, number("qnum"), where);
        break;
    }
  }

  static Json member(const Json& extra, const char* name, const std::string& where) {
    if (extra.is_null()) {
      return {};
    }
    if (!extra.is_object()) {
      wrong(where, "an object with inq and outq expected");
    }
    const auto found = extra.find(name);
    return found == extra.end() ? Json() : *found;
  }

  // Base64, of that size if one is given.
  void bytes(const Json& value, std::optional<std::uint64_t> wanted, const std::string& where) {
    std::uint64_t size = 0;
    Spool::Range storage;
    if (const auto* range = spooled(value, storage)) {
      size = range->size;
      spool_.copy(*range, [this](std::string_view piece) { to_.write(piece); });
    } else if (value.is_string()) {
      const auto& text = value.get_ref<const std::string&>();
      const auto decoded = from_base64(text);
      if (!decoded) {
        wrong(where, text.starts_with("... <") ? "the bytes were left out (--nopl)" : "no base64");
      }
      size = decoded->size();
      to_.write(*decoded);
    } else if (!value.is_null()) {
      wrong(where, "a string expected");
    }
    if (wanted && *wanted != size) {
      wrong(where, fmt::format("{} bytes, but the entry says {}", size, *wanted));
    }
  }

  void pad(std::uint64_t size) { to_.write(std::string(static_cast<std::size_t>(size), '\0')); }

  void semaphores(const Json& list, std::uint64_t count, const std::string& where) {
    if (!list.is_array() || list.size() != count) {
      wrong(where, fmt::format("a list of {} numbers expected", count));
    }
    for (const auto& one : list) {
      std::optional<Number> number;
      if (one.is_number_unsigned()) {
        number = Number{one.get<std::uint64_t>()};
      } else if (one.is_string()) {
        number = read_number(one.get_ref<const std::string&>());
      }
      if (!number || number->negative || number->magnitude > std::numeric_limits<std::uint16_t>::max()) {
        wrong(where, "a semaphore's value is a number of 16 bits");
      }
      const auto value = static_cast<std::uint16_t>(number->magnitude);
      to_.write({reinterpret_cast<const char*>(&value), sizeof value});
    }
    pad((0 - 2 * count) % 8);
  }

  void messages(const Json& list, std::uint64_t count, const std::string& where) {
    if (count == 0 && list.is_null()) {
      return;
    }
    if (!list.is_array() || list.size() != 2 * count) {
      wrong(where, fmt::format("a list of {} messages, each with its bytes behind it, expected", count));
    }
    const auto message = Schema::get().make("ipc_msg");
    for (std::size_t i = 0; i < list.size(); i += 2) {
      put_record(list[i], *message, fmt::format("{}[{}]", where, i));
      const auto size = number_field(*message, "msize");
      bytes(list[i + 1], size, fmt::format("{}[{}]", where, i + 1));
      pad((0 - size) % 8);
    }
  }

  Output& to_;
  const Spool& spool_;
  const Kind* kind_ = nullptr;
  std::unique_ptr<Message> record_;
  std::uint64_t count_ = 0;
};

}  // namespace

void encode(Source& from, Output& to) {
  Spool spool;
  Encoder encoder(to, spool);
  JsonReader reader(from);
  std::vector<Json> waiting;  // entries that came before the magic
  bool entries = false;
  reader.object([&](const std::string& key) {
    if (key == "magic" && !encoder.begun()) {
      encoder.begin(reader.string());
      for (const auto& entry : waiting) {
        encoder.entry(entry);
      }
      waiting.clear();
    } else if (key == "entries" && !entries) {
      entries = true;
      reader.array([&] {
        auto entry = reader.entry(spool);
        if (encoder.begun()) {
          encoder.entry(entry);
          spool.clear();
        } else {
          waiting.push_back(std::move(entry));
        }
      });
    } else {
      from.corrupt("an image is an object with \"magic\" and \"entries\", not \"" + escaped(key) + "\"");
    }
  });
  reader.end();
  if (!encoder.begun() || !entries) {
    from.corrupt("no \"magic\" or no \"entries\": this is no image");
  }
}

}  // namespace crit
