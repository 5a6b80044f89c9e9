// SPDX-License-Identifier: LGPL-2.1-only
// The byte string of a saved connection, as docs/libsoccr.md describes it: a header of little-endian numbers, then the
// two queues. One walk over the fields serves both directions.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.hpp"
#include "saved.hpp"

namespace soccr {

namespace {

constexpr std::array<char, 8> magic{'S', 'O', 'C', 'C', 'R', '\r', '\n', '\x1a'};
constexpr std::uint32_t version = 1;
constexpr std::size_t header_size = 148;

class Writer {
 public:
  explicit Writer(std::byte* to) : at_(to) {}
  void number(std::uint32_t value) { little_endian(value, 4); }
  void half(std::uint16_t value) { little_endian(value, 2); }
  void bytes(const void* from, std::size_t size) {
    if (size != 0) {
      std::memcpy(at_, from, size);
    }
    at_ += size;
  }

 private:
  void little_endian(std::uint32_t value, unsigned size) {
    for (unsigned i = 0; i < size; ++i) {
      *at_++ = static_cast<std::byte>(value >> (8 * i));
    }
  }

  std::byte* at_;
};

// Reads what is known to be there: the caller compares sizes first.
class Reader {
 public:
  explicit Reader(const std::byte* from) : at_(from) {}
  void number(std::uint32_t& value) { value = little_endian(4); }
  void half(std::uint16_t& value) { value = static_cast<std::uint16_t>(little_endian(2)); }
  void bytes(void* to, std::size_t size) {
    std::memcpy(to, at_, size);
    at_ += size;
  }

 private:
  std::uint32_t little_endian(unsigned size) {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < size; ++i) {
      value |= static_cast<std::uint32_t>(*at_++) << (8 * i);
    }
    return value;
  }

  const std::byte* at_;
};

// AF_INET6 is not the same number everywhere, 4 and 6 are.
std::uint16_t wire_family(std::uint16_t family) {
  return static_cast<std::uint16_t>(family == AF_INET ? 4 : (family == AF_INET6 ? 6 : 0));
}
std::uint16_t host_family(std::uint16_t family) {
  switch (family) {
    case 0:
      return 0;
    case 4:
      return AF_INET;
    case 6:
      return AF_INET6;
    default:
      return UINT16_MAX;  // refused with the other fields
  }
}

template <typename Stream, typename Address>
void walk_address(Stream& stream, Address& address) {
  stream.half(address.family);
  stream.half(address.port);
  stream.number(address.scope_id);
  stream.bytes(address.bytes, sizeof address.bytes);
}

template <typename Stream, typename Fields>
void walk(Stream& stream, Fields& fields) {
  stream.number(fields.state);
  stream.number(fields.flags);
  stream.number(fields.options);
  walk_address(stream, fields.local);
  walk_address(stream, fields.peer);
  for (auto* value : {&fields.inq_seq, &fields.inq_len, &fields.outq_seq, &fields.outq_len, &fields.unsq_len,
                      &fields.snd_wscale, &fields.rcv_wscale, &fields.mss_clamp, &fields.timestamp, &fields.snd_wl1,
                      &fields.snd_wnd, &fields.max_window, &fields.rcv_wnd, &fields.rcv_wup, &fields.sndbuf,
                      &fields.rcvbuf, &fields.buf_lock, &fields.backlog, &fields.fastopen}) {
    stream.number(*value);
  }
}

[[noreturn]] void damaged(std::string what) { throw base::Error("saved connection", std::move(what), EBADMSG); }

}  // namespace

std::size_t encoded_size(const soccr_saved& saved) { return header_size + saved.inq.size() + saved.outq.size(); }

void encode(const soccr_saved& saved, std::byte* to) {
  Writer writer(to);
  writer.bytes(magic.data(), magic.size());
  writer.number(version);
  soccr_fields fields = saved.fields;
  fields.local.family = wire_family(fields.local.family);
  fields.peer.family = wire_family(fields.peer.family);
  walk(writer, fields);
  writer.bytes(saved.inq.data(), saved.inq.size());
  writer.bytes(saved.outq.data(), saved.outq.size());
}

Saved decode(std::span<const std::byte> bytes) {
  const auto known = magic.size() + sizeof version;
  if (bytes.size() < known || std::memcmp(bytes.data(), magic.data(), magic.size()) != 0) {
    damaged("these bytes are none");
  }
  Reader reader(bytes.data() + magic.size());
  std::uint32_t found = 0;
  reader.number(found);
  if (found != version) {
    throw base::Error("saved connection", "version " + std::to_string(found), EPROTONOSUPPORT,
                      "this library reads version 1");
  }
  if (bytes.size() < header_size) {
    damaged("cut within its header");
  }
  auto saved = std::make_unique<soccr_saved>();
  auto& fields = saved->fields;
  walk(reader, fields);
  fields.size = sizeof fields;
  fields.local.family = host_family(fields.local.family);
  fields.peer.family = host_family(fields.peer.family);
  try {
    validate(fields);
  } catch (const base::Error& error) {
    damaged(error.object());
  }
  if (bytes.size() - header_size != std::uint64_t{fields.inq_len} + fields.outq_len) {
    damaged("the queues are not as long as the header says");
  }
  const auto queues = bytes.subspan(header_size);
  saved->inq.assign(queues.begin(), queues.begin() + fields.inq_len);
  saved->outq.assign(queues.begin() + fields.inq_len, queues.end());
  return saved;
}

}  // namespace soccr
