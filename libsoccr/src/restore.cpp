// SPDX-License-Identifier: LGPL-2.1-only
// The order of the steps is what keeps the peer from seeing anything, so restore_connection is their list.
#include "restore.hpp"

#include <fcntl.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "closing.hpp"
#include "socket.hpp"

namespace soccr {

namespace {

constexpr std::uint32_t option_mss = 2, option_wscale = 3, option_sack = 4, option_timestamps = 8;  // RFC 9293, 7323
constexpr std::size_t receive_piece = 16 * 4096;  // the kernel takes no more than 17 pages in one packet
constexpr std::uint64_t most_buffer = 1U << 30;

[[noreturn]] void fail(const soccr_fields& fields, std::string step, int error, const char* hint) {
  throw base::Error(std::move(step), text(fields.local) + " to " + text(fields.peer), error, hint);
}

void require_suitable(int fd, const soccr_fields& fields) {
  if (get<int>(fd, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN") != fields.local.family) {
    throw base::Error("restore connection", text(fields.local), EINVAL, "the socket is of the other family");
  }
  if (state_of(fd) != SOCCR_CLOSED) {
    throw base::Error("restore connection", text(fields.local), EINVAL, "the socket is in use");
  }
}

void set_seq(int fd, int queue, std::uint32_t value) {
  const Selected selected(fd, queue);
  set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, value, "TCP_QUEUE_SEQ", "the socket was used before");
}

bool same_place(soccr_address a, soccr_address b) {
  a.scope_id = b.scope_id = 0;
  return std::memcmp(&a, &b, sizeof a) == 0;
}

void bind_local(int fd, const soccr_fields& fields) {
  const auto bound = local_address(fd);
  if (bound.port != 0) {
    if (!same_place(bound, fields.local)) {
      throw base::Error("restore connection", text(fields.local), EINVAL, "the socket is bound to " + text(bound));
    }
    return;
  }
  sockaddr_storage address{};
  const auto size = to_sockaddr(fields.local, address);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), size) != 0) {
    const int error = errno;
    throw base::Error(
        "bind", text(fields.local), error,
        error == EADDRNOTAVAIL ? "the address is not on this machine; add it, or allow it with IP_FREEBIND" : "");
  }
}

int try_connect(int fd, const soccr_address& peer) {
  sockaddr_storage address{};
  const auto size = to_sockaddr(peer, address);
  return ::connect(fd, reinterpret_cast<const sockaddr*>(&address), size) == 0 ? 0 : errno;
}

void connect_peer(int fd, const soccr_fields& fields) {
  auto peer = fields.peer;
  int error = try_connect(fd, peer);
  // Behind a connection that is over on both sides waits its own TIME_WAIT. Nobody asks for its peer any more, so any
  // port will do.
  for (int tries = 0; error == EADDRNOTAVAIL && fields.state == SOCCR_CLOSED && tries < 64; ++tries) {
    peer.port = static_cast<std::uint16_t>(peer.port > 1024 ? peer.port - 1 : 65535);
    error = try_connect(fd, peer);
  }
  if (error == EADDRNOTAVAIL) {
    fail(fields, "restore connection", EADDRINUSE, "it exists on this machine already");
  }
  if (error != 0) {
    fail(fields, "connect", error,
         error == ENETUNREACH || error == EHOSTUNREACH ? "there is no route to the peer" : "");
  }
}

void set_options(int fd, const soccr_fields& fields) {
  tcp_repair_opt options[4];
  unsigned count = 0;
  if ((fields.options & SOCCR_OPT_SACK) != 0) {
    options[count++] = {option_sack, 0};
  }
  if ((fields.options & SOCCR_OPT_WSCALE) != 0) {
    options[count++] = {option_wscale, fields.snd_wscale + (fields.rcv_wscale << 16)};
  }
  if ((fields.options & SOCCR_OPT_TIMESTAMPS) != 0) {
    options[count++] = {option_timestamps, 0};
  }
  options[count++] = {option_mss, fields.mss_clamp};
  base::check(::setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options, count * sizeof options[0]),
              "TCP_REPAIR_OPTIONS", text(fields.local));
  if ((fields.options & SOCCR_OPT_TIMESTAMPS) != 0) {
    // The low bit is the unit, for a kernel that knows two; another one may have written it as part of the time.
    const bool micro = (fields.options & SOCCR_OPT_USEC_TIMESTAMPS) != 0;
    const auto value = micro ? fields.timestamp | 1U : (fields.timestamp + 1U) & ~1U;
    set(fd, IPPROTO_TCP, TCP_TIMESTAMP, value, "TCP_TIMESTAMP");
  }
}

void set_window(int fd, const tcp_repair_window& window) {
  set(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, window, "TCP_REPAIR_WINDOW");
}

// While the queues are filled the peer's window is closed, so that nothing is sent, and ours is open for its FIN.
tcp_repair_window closed_window(const soccr_fields& fields) {
  tcp_repair_window window{};
  window.snd_wl1 = window.rcv_wup = inq_start(fields);
  window.rcv_wnd = fields.inq_len + 65535;
  return window;
}

tcp_repair_window saved_window(const soccr_fields& fields) {
  return {fields.snd_wl1, fields.snd_wnd, fields.max_window, fields.rcv_wnd, fields.rcv_wup};
}

void fill_receive_queue(int fd, const soccr_saved& saved, Buffers& buffers) {
  std::span<const std::byte> rest(saved.inq);
  buffers.receive_at_least(std::min(2 * rest.size() + 2 * receive_piece, most_buffer));
  const Selected selected(fd, TCP_RECV_QUEUE);
  while (!rest.empty()) {
    const auto sent = ::send(fd, rest.data(), std::min(rest.size(), receive_piece), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent <= 0) {
      throw base::Error("receive queue", std::to_string(rest.size()) + " bytes too many", ENOBUFS,
                        "raise net.core.rmem_max, or have CAP_NET_ADMIN in the first user namespace");
    }
    rest = rest.subspan(static_cast<std::size_t>(sent));
  }
}

void write_out(int fd, std::span<const std::byte> rest, Buffers& buffers) {
  while (!rest.empty()) {
    const auto sent = ::send(fd, rest.data(), rest.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) {
      rest = rest.subspan(static_cast<std::size_t>(sent));
      continue;
    }
    if (errno == EINTR) {
      continue;
    }
    const auto more = std::uint64_t{buffers.send_size()} * 2;
    if (errno != EAGAIN || more > most_buffer || !buffers.send_at_least(more)) {
      throw base::Error("send queue", std::to_string(rest.size()) + " bytes too many",
                        errno == EAGAIN ? ENOBUFS : errno,
                        "raise net.core.wmem_max, or have CAP_NET_ADMIN in the first user namespace");
    }
  }
}

// Writes what was never sent. Repair mode would take it for sent, so this happens outside; the window is closed.
template <typename Call>
void outside_repair(int fd, Call call) {
  leave_repair(fd, false);
  call();
  enter_repair(fd);
}

void fill_send_queue(int fd, const soccr_saved& saved, Buffers& buffers) {
  const std::span<const std::byte> all(saved.outq);
  const auto sent = all.first(all.size() - saved.fields.unsq_len);
  buffers.send_at_least(std::min(2 * all.size(), most_buffer));
  {
    const Selected selected(fd, TCP_SEND_QUEUE);
    write_out(fd, sent, buffers);
  }
  if (saved.fields.unsq_len > 0) {
    outside_repair(fd, [&] { write_out(fd, all.subspan(sent.size()), buffers); });
  }
}

void send_fin(int fd, const soccr_fields& fields) {
  const auto shut = [fd] { base::check(::shutdown(fd, SHUT_WR), "shutdown"); };
  if ((fields.flags & SOCCR_FIN_UNSENT) != 0 || fields.unsq_len > 0) {
    outside_repair(fd, shut);
    return;
  }
  const Selected selected(fd, TCP_SEND_QUEUE);  // in which repair mode takes everything for sent
  shut();
}

// Both FINs in the order that leads into the saved state.
void close_sides(int fd, const soccr_fields& fields) {
  const auto next = inq_start(fields) + fields.inq_len;
  const auto unacked = outq_start(fields);
  const Segment fin{next, unacked, true};
  const auto acked = [&](std::uint32_t seq) { return Segment{seq, fields.outq_seq, false}; };
  switch (fields.state) {
    case SOCCR_FIN_WAIT_1:
      send_fin(fd, fields);
      break;
    case SOCCR_FIN_WAIT_2:
      send_fin(fd, fields);
      receive_segment(fd, fields, acked(next), SOCCR_FIN_WAIT_2);
      break;
    case SOCCR_CLOSE_WAIT:
      receive_segment(fd, fields, fin, SOCCR_CLOSE_WAIT);
      break;
    case SOCCR_LAST_ACK:
      receive_segment(fd, fields, fin, SOCCR_CLOSE_WAIT);
      send_fin(fd, fields);
      break;
    case SOCCR_CLOSING:
      send_fin(fd, fields);
      receive_segment(fd, fields, fin, SOCCR_CLOSING);
      break;
    case SOCCR_CLOSED:
      receive_segment(fd, fields, fin, SOCCR_CLOSE_WAIT);
      send_fin(fd, fields);
      receive_segment(fd, fields, acked(next + 1), SOCCR_CLOSED);
      break;
    default:
      break;
  }
}

void verify(int fd, const soccr_fields& fields) {
  const bool there = state_of(fd) == fields.state && queue_seq(fd, TCP_SEND_QUEUE) == fields.outq_seq &&
                     queue_seq(fd, TCP_RECV_QUEUE) == fields.inq_seq;
  if (!there) {
    fail(fields, "restore connection", EIO, "the socket is not in the saved state; do packets of the peer arrive?");
  }
}

void fill(int fd, const soccr_saved& saved) {
  const auto& fields = saved.fields;
  Buffers buffers(fd);
  buffers.wish(fields.sndbuf, fields.rcvbuf, fields.buf_lock);
  // An image of an old CRIU has no windows; then the kernel's first ones stay, and the peer's answer opens them.
  const auto first = get<tcp_repair_window>(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, "TCP_REPAIR_WINDOW");
  set_window(fd, closed_window(fields));
  fill_receive_queue(fd, saved, buffers);
  fill_send_queue(fd, saved, buffers);
  close_sides(fd, fields);
  if (fields.state != SOCCR_CLOSED) {
    auto window = saved_window(fields);
    if ((fields.flags & SOCCR_HAS_WINDOW) == 0) {
      window = first;
      window.rcv_wup = window.snd_wl1 = fields.inq_seq;
    }
    set_window(fd, window);
  }
}

}  // namespace

void restore_connection(int fd, const soccr_saved& saved) {
  const auto& fields = saved.fields;
  require_suitable(fd, fields);
  if ((fields.flags & SOCCR_FASTOPEN_NO_COOKIE) != 0) {
    try_set(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1);
  }
  if (fields.state == SOCCR_LISTEN && fields.local.family == AF_INET6) {
    set(fd, IPPROTO_IPV6, IPV6_V6ONLY, (fields.flags & SOCCR_V6ONLY) != 0 ? 1 : 0, "IPV6_V6ONLY");
  }
  enter_repair(fd);  // also lets bind share the port with its listener
  if (fields.state == SOCCR_LISTEN) {
    bind_local(fd, fields);
    return;
  }
  set_seq(fd, TCP_SEND_QUEUE, outq_start(fields));
  if (fields.state == SOCCR_SYN_SENT) {
    bind_local(fd, fields);
    return;
  }
  set_seq(fd, TCP_RECV_QUEUE, inq_start(fields));
  bind_local(fd, fields);
  connect_peer(fd, fields);
  mute(fd);
  set_options(fd, fields);
  fill(fd, saved);
  verify(fd, fields);
}

void begin(int fd, const soccr_fields& fields) {
  if (fields.state == SOCCR_LISTEN) {
    if (fields.fastopen != 0) {
      set(fd, IPPROTO_TCP, TCP_FASTOPEN, fields.fastopen, "TCP_FASTOPEN");
    }
    if (::listen(fd, static_cast<int>(fields.backlog)) != 0) {
      throw base::Error("listen", text(fields.local), errno);
    }
    return;
  }
  if ((fields.flags & SOCCR_FASTOPEN_CONNECT) != 0) {
    try_set(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1);
  }
  // Whether the application wants to wait is its own affair; here nobody does.
  const int flags = base::check(::fcntl(fd, F_GETFL), "fcntl");
  base::check(::fcntl(fd, F_SETFL, flags | O_NONBLOCK), "fcntl");
  const int error = try_connect(fd, fields.peer);
  ::fcntl(fd, F_SETFL, flags);
  if (error != 0 && error != EINPROGRESS) {
    fail(fields, "connect", error == EADDRNOTAVAIL ? EADDRINUSE : error, "");
  }
}

void drop_connection(int fd) {
  const sockaddr none{AF_UNSPEC, {}};
  (void)::connect(fd, &none, sizeof none);
  unmute(fd);
  set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP, "TCP_REPAIR");
}

}  // namespace soccr
