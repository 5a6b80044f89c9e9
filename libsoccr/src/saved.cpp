// SPDX-License-Identifier: LGPL-2.1-only
#include "saved.hpp"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.hpp"

namespace soccr {

namespace {

// A window cannot be wider than 65535 << 14, nor a queue much longer than a window; and half of the sequence space is
// where the order of two numbers ends.
constexpr std::uint32_t max_length = 1U << 30;
constexpr std::uint32_t max_scale = 14;
constexpr std::uint32_t min_mss = 48;  // the kernel's own floor
constexpr std::uint32_t known_options = 255;
constexpr std::uint32_t known_flags = 31;

constexpr unsigned bit(unsigned state) { return 1U << state; }
constexpr unsigned savable = bit(SOCCR_ESTABLISHED) | bit(SOCCR_SYN_SENT) | bit(SOCCR_FIN_WAIT_1) |
                             bit(SOCCR_FIN_WAIT_2) | bit(SOCCR_CLOSED) | bit(SOCCR_CLOSE_WAIT) | bit(SOCCR_LAST_ACK) |
                             bit(SOCCR_LISTEN) | bit(SOCCR_CLOSING);
constexpr unsigned with_peers_fin =
    bit(SOCCR_CLOSED) | bit(SOCCR_CLOSE_WAIT) | bit(SOCCR_LAST_ACK) | bit(SOCCR_CLOSING);
constexpr unsigned with_own_fin =
    bit(SOCCR_CLOSED) | bit(SOCCR_FIN_WAIT_1) | bit(SOCCR_FIN_WAIT_2) | bit(SOCCR_LAST_ACK) | bit(SOCCR_CLOSING);
constexpr unsigned with_unacked_fin = bit(SOCCR_FIN_WAIT_1) | bit(SOCCR_LAST_ACK) | bit(SOCCR_CLOSING);

bool in(unsigned states, unsigned state) { return state < 32 && (states & bit(state)) != 0; }

void require(bool ok, const char* field, const char* rule) {
  if (!ok) {
    throw base::Error("saved connection", std::string(field) + " " + rule, EINVAL);
  }
}

// Is a later than b in the sequence space?
bool after(std::uint32_t a, std::uint32_t b) { return static_cast<std::int32_t>(b - a) < 0; }

bool is_zero(const soccr_address& address) {
  static constexpr soccr_address zero{};
  return std::memcmp(&address, &zero, sizeof zero) == 0;
}

bool is_any(const soccr_address& address) {
  static constexpr std::uint8_t zero[16] = {};
  return std::memcmp(address.bytes, zero, sizeof zero) == 0;
}

bool is_mapped(const soccr_address& address) {
  static constexpr std::uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return address.family == AF_INET6 && std::memcmp(address.bytes, prefix, sizeof prefix) == 0;
}

void validate_address(const soccr_address& address, const char* name) {
  require(address.family == AF_INET || address.family == AF_INET6, name, "is neither IPv4 nor IPv6");
  const bool v4 = address.family == AF_INET;
  if (v4) {
    static constexpr std::uint8_t zero[12] = {};
    require(std::memcmp(address.bytes + 4, zero, sizeof zero) == 0, name, "has more than the 4 bytes of IPv4");
  }
  if (v4 || is_mapped(address)) {
    const unsigned first = address.bytes[v4 ? 0 : 12];
    require(address.scope_id == 0, name, "has a scope, and is IPv4");
    require(first < 224, name, "is multicast or reserved");
    static constexpr std::uint8_t zero[4] = {};
    require(v4 || std::memcmp(address.bytes + 12, zero, sizeof zero) != 0, name, "is the mapped 0.0.0.0");
  } else {
    require(address.bytes[0] != 0xff, name, "is multicast");
    const bool link_local = address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80;
    require(link_local == (address.scope_id != 0), name, "has a scope if and only if it is link-local");
    require(address.scope_id <= INT32_MAX, name, "has no interface's number as scope");
  }
  require(address.port != 0, name, "has no port");
}

void validate_listener(const soccr_fields& fields) {
  validate_address(fields.local, "local address");
  require(is_zero(fields.peer), "peer", "is there, and the socket listens");
  require(fields.inq_len == 0 && fields.outq_len == 0 && fields.unsq_len == 0, "queue", "is not empty, in LISTEN");
  require(fields.backlog <= INT32_MAX && fields.fastopen <= INT32_MAX, "backlog", "is negative");
}

void validate_queues(const soccr_fields& fields) {
  require(fields.inq_len <= max_length, "inq_len", "is above 1 GiB");
  require(fields.outq_len <= max_length, "outq_len", "is above 1 GiB");
  require(fields.unsq_len <= fields.outq_len, "unsq_len", "is above outq_len");
  if (fields.state == SOCCR_SYN_SENT) {
    require(fields.inq_len == 0 && fields.outq_len == 0, "queue", "is not empty, in SYN_SENT");
  }
  if (fields.state == SOCCR_FIN_WAIT_2 || fields.state == SOCCR_CLOSED) {
    require(fields.outq_len == 0, "outq_len", "is above 0, and our FIN was acknowledged");
  }
  require((fields.flags & SOCCR_FIN_UNSENT) == 0 || in(with_unacked_fin, fields.state), "flags",
          "speak of an unsent FIN that this state has not");
}

void validate_window(const soccr_fields& fields) {
  if ((fields.flags & SOCCR_HAS_WINDOW) == 0) {
    return;
  }
  require(fields.max_window <= max_length && fields.rcv_wnd <= max_length, "window", "is above 1 GiB");
  require(fields.snd_wnd <= fields.max_window, "snd_wnd", "is above max_window");
  require(!after(fields.snd_wl1, fields.inq_seq + fields.rcv_wnd), "snd_wl1", "is behind the receive window");
  require(!after(fields.rcv_wup, fields.inq_seq), "rcv_wup", "is after inq_seq");
  require(fields.inq_seq - fields.rcv_wup <= max_length, "rcv_wup", "is far before inq_seq");
}

}  // namespace

bool received_fin(unsigned state) { return in(with_peers_fin, state); }
bool queued_fin(unsigned state) { return in(with_own_fin, state); }

std::uint32_t inq_start(const soccr_fields& fields) {
  return fields.inq_seq - (received_fin(fields.state) ? 1 : 0) - fields.inq_len;
}

std::uint32_t outq_start(const soccr_fields& fields) {
  const bool counts = queued_fin(fields.state) || fields.state == SOCCR_SYN_SENT;
  return fields.outq_seq - (counts ? 1 : 0) - fields.outq_len;
}

void validate(const soccr_fields& fields) {
  require(in(savable, fields.state), "state", "is none that can be restored");
  require((fields.flags & ~known_flags) == 0, "flags", "are unknown");
  require((fields.options & ~known_options) == 0, "options", "are unknown");
  require(fields.sndbuf <= INT32_MAX && fields.rcvbuf <= INT32_MAX, "buffer", "is negative");
  require(fields.buf_lock <= 3, "buf_lock", "is unknown");
  if (fields.state == SOCCR_LISTEN) {
    validate_listener(fields);
    return;
  }
  validate_address(fields.local, "local address");
  validate_address(fields.peer, "peer");
  require(!is_any(fields.local), "local address", "is missing");
  require(!is_any(fields.peer), "peer", "is missing");
  require(fields.local.family == fields.peer.family && is_mapped(fields.local) == is_mapped(fields.peer), "peer",
          "is of another family than the local address");
  require(fields.backlog == 0 && fields.fastopen == 0, "backlog", "is there, and the socket does not listen");
  require(fields.snd_wscale <= max_scale && fields.rcv_wscale <= max_scale, "window scale", "is above 14");
  require(fields.state == SOCCR_SYN_SENT || (fields.mss_clamp >= min_mss && fields.mss_clamp <= 65535), "mss_clamp",
          "is not in 48 to 65535");
  validate_queues(fields);
  validate_window(fields);
}

}  // namespace soccr
