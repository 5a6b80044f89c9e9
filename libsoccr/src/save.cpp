// SPDX-License-Identifier: LGPL-2.1-only
#include "save.hpp"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <cstring>
#include <string>

#include "base/kernel.hpp"
#include "socket.hpp"

namespace soccr {

namespace {

[[noreturn]] void refuse(const std::string& what, int error, const char* hint = "") {
  throw base::Error("save connection", what, error, hint);
}

std::uint32_t count(int fd, unsigned long request, const char* what) {
  int value = 0;
  base::check(::ioctl(fd, request, &value), what, "TCP socket");
  return static_cast<std::uint32_t>(value);
}

// SO_PEEK_OFF and SO_OOBINLINE decide what a look into the queues shows. Both are the application's.
class PlainView {
 public:
  explicit PlainView(int fd)
      : fd_(fd),
        peek_(ask<int>(fd, SOL_SOCKET, SO_PEEK_OFF).value_or(-1)),
        inline_(get<int>(fd, SOL_SOCKET, SO_OOBINLINE, "SO_OOBINLINE")) {
    if (peek_ >= 0) {
      set(fd_, SOL_SOCKET, SO_PEEK_OFF, -1, "SO_PEEK_OFF");
    }
  }
  PlainView(const PlainView&) = delete;
  PlainView& operator=(const PlainView&) = delete;
  ~PlainView() {
    if (peek_ >= 0) {
      try_set(fd_, SOL_SOCKET, SO_PEEK_OFF, peek_);
    }
    try_set(fd_, SOL_SOCKET, SO_OOBINLINE, inline_);
  }
  void urgent_inline(bool on) const { set(fd_, SOL_SOCKET, SO_OOBINLINE, on ? 1 : 0, "SO_OOBINLINE"); }

 private:
  int fd_;
  int peek_, inline_;
};

// Urgent data lies outside the stream, and so shows in whether both views of the stream agree.
void refuse_urgent(int fd, const PlainView& view) {
  view.urgent_inline(false);
  char byte;
  const bool none = ::recv(fd, &byte, 1, MSG_OOB | MSG_PEEK | MSG_DONTWAIT) < 0 && errno != EAGAIN;
  const auto without = count(fd, SIOCINQ, "SIOCINQ");
  view.urgent_inline(true);
  if (!none || count(fd, SIOCINQ, "SIOCINQ") != without) {
    refuse("urgent data waits in the receive queue", EOPNOTSUPP, "let the application read it first");
  }
}

// What a socket may have on top that no other socket can be given.
void refuse_extras(int fd) {
  char name[17] = {};
  socklen_t size = sizeof name - 1;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_ULP, name, &size) == 0 && size > 0 && name[0] != 0) {
    refuse(std::string("the upper layer \"") + name + "\" keeps state of its own in the kernel", EOPNOTSUPP);
  }
  // Fails with ENOENT for a socket without keys, and with ENOPROTOOPT on a kernel without AO.
  alignas(8) char info[256] = {};
  size = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, base::kernel::tcp_ao_info, info, &size) == 0) {
    refuse("the connection is signed (TCP-AO)", EOPNOTSUPP, "its keys cannot be read");
  }
}

void check_state(int fd, unsigned state) {
  switch (state) {
    case SOCCR_SYN_RECEIVED:
      refuse("it is in SYN_RECEIVED", EOPNOTSUPP, "its handshake ends in a moment");
    case SOCCR_CLOSED: {
      pollfd events{fd, 0, 0};
      if (::poll(&events, 1, 0) > 0 && (events.revents & POLLERR) != 0) {
        refuse("it died of an error", ECONNRESET);
      }
      break;
    }
    default:
      break;
  }
}

// What moves when a packet comes in; and first of all what moves by itself: while the send queue is the selected one, a
// kernel that wants to send (its pacing timer wants to all the time) counts as sent what never left.
struct Moment {
  std::uint32_t unsent, state, inq_seq, inq_len, outq_seq, outq_len;

  explicit Moment(int fd)
      : unsent(count(fd, SIOCOUTQNSD, "SIOCOUTQNSD")),
        state(state_of(fd)),
        inq_seq(queue_seq(fd, TCP_RECV_QUEUE)),
        inq_len(count(fd, SIOCINQ, "SIOCINQ")),
        outq_seq(queue_seq(fd, TCP_SEND_QUEUE)),
        outq_len(count(fd, SIOCOUTQ, "SIOCOUTQ")) {}

  // In words, what is different now in what only the peer can change; empty: nothing.
  std::string changes_until(const Moment& now) const {
    const auto changed = [](const char* what, std::uint32_t from, std::uint32_t to) {
      return from == to ? "" : std::string(", ") + what + " from " + std::to_string(from) + " to " + std::to_string(to);
    };
    return changed("state", state, now.state) + changed("received", inq_seq, now.inq_seq) +
           changed("unread", inq_len, now.inq_len) + changed("written", outq_seq, now.outq_seq) +
           changed("not acknowledged", outq_len, now.outq_len);
  }
};

// A FIN counts in the kernel's numbers, and not in ours.
void fill_queues(soccr_fields& fields, const Moment& now) {
  fields.state = now.state;
  fields.inq_seq = now.inq_seq;
  fields.inq_len = now.inq_len;
  fields.outq_seq = now.outq_seq;
  fields.outq_len = now.outq_len;
  fields.unsq_len = now.unsent;
  if (now.state == SOCCR_CLOSED || now.state == SOCCR_SYN_SENT) {
    fields.outq_len = fields.unsq_len = 0;
  } else if (queued_fin(now.state) && now.outq_len > 0) {
    --fields.outq_len;
    if (now.unsent > 0) {
      --fields.unsq_len;
      fields.flags |= SOCCR_FIN_UNSENT;
    }
  }
}

void fill_options(int fd, soccr_fields& fields) {
  const auto info = get<tcp_info>(fd, IPPROTO_TCP, TCP_INFO, "TCP_INFO");
  fields.options = info.tcpi_options;
  if ((fields.options & SOCCR_OPT_WSCALE) != 0) {
    fields.snd_wscale = info.tcpi_snd_wscale;
    fields.rcv_wscale = info.tcpi_rcv_wscale;
  }
  fields.mss_clamp = get<std::uint32_t>(fd, IPPROTO_TCP, TCP_MAXSEG, "TCP_MAXSEG");
  fields.timestamp = get<std::uint32_t>(fd, IPPROTO_TCP, TCP_TIMESTAMP, "TCP_TIMESTAMP");
  if (ask<int>(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT).value_or(0) != 0) {
    fields.flags |= SOCCR_FASTOPEN_CONNECT;
  }
  if (ask<int>(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE).value_or(0) != 0) {
    fields.flags |= SOCCR_FASTOPEN_NO_COOKIE;
  }
}

void fill_window(int fd, soccr_fields& fields) {
  const auto window = get<tcp_repair_window>(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, "TCP_REPAIR_WINDOW");
  fields.snd_wl1 = window.snd_wl1;
  fields.snd_wnd = window.snd_wnd;
  fields.max_window = window.max_window;
  fields.rcv_wnd = window.rcv_wnd;
  fields.rcv_wup = window.rcv_wup;
  fields.flags |= SOCCR_HAS_WINDOW;
}

void fill_buffers(int fd, soccr_fields& fields) {
  fields.sndbuf = get<std::uint32_t>(fd, SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF");
  fields.rcvbuf = get<std::uint32_t>(fd, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF");
  fields.buf_lock = ask<std::uint32_t>(fd, SOL_SOCKET, SO_BUF_LOCK).value_or(0);
}

std::vector<std::byte> peek(int fd, int queue, std::size_t size, const char* what) {
  std::vector<std::byte> bytes(size);
  if (size != 0) {
    const Selected selected(fd, queue);
    const auto got = base::check(::recv(fd, bytes.data(), size, MSG_PEEK | MSG_DONTWAIT), what, "TCP socket");
    if (static_cast<std::size_t>(got) != size) {
      refuse("it changed meanwhile", EAGAIN, "keep the peer's packets away");
    }
  }
  return bytes;
}

// Fast open: in SYN_SENT the send queue is empty by all counts, and yet may hold what went with the SYN.
void refuse_syn_data(int fd) {
  const Selected selected(fd, TCP_SEND_QUEUE);
  std::byte some[1];
  // The kernel copies whole packets or fails.
  if (::recv(fd, some, sizeof some, MSG_PEEK | MSG_DONTWAIT) != 0) {
    refuse("its SYN carries data (fast open)", EOPNOTSUPP, "its handshake ends in a moment");
  }
}

}  // namespace

Saved save_connection(int fd) {
  const Moment before(fd);
  check_state(fd, before.state);
  const auto peer = peer_address(fd);
  if (!peer) {
    refuse("the socket is not connected", ENOTCONN);
  }
  refuse_extras(fd);
  if (before.state == SOCCR_SYN_SENT) {
    refuse_syn_data(fd);
  }
  auto saved = std::make_unique<soccr_saved>();
  auto& fields = saved->fields;
  fields.size = sizeof fields;
  fields.local = local_address(fd);
  fields.peer = *peer;
  fill_queues(fields, before);
  fill_options(fd, fields);
  fill_window(fd, fields);
  fill_buffers(fd, fields);
  {
    const PlainView view(fd);
    refuse_urgent(fd, view);
    saved->inq = peek(fd, TCP_RECV_QUEUE, fields.inq_len, "receive queue");
    saved->outq = peek(fd, TCP_SEND_QUEUE, fields.outq_len, "send queue");
  }
  if (const auto changes = before.changes_until(Moment(fd)); !changes.empty()) {
    refuse("it changed meanwhile" + changes, EAGAIN, "keep the peer's packets away");
  }
  validate(fields);
  return saved;
}

Saved save_listener(int fd, bool skip_pending) {
  const auto info = get<tcp_info>(fd, IPPROTO_TCP, TCP_INFO, "TCP_INFO");
  // For a listener these two are the length of its accept queue and the limit.
  if (info.tcpi_unacked > 0 && !skip_pending) {
    refuse(std::to_string(info.tcpi_unacked) + " connections wait to be accepted", EBUSY,
           "accept them, or skip them with SOCCR_SKIP_PENDING");
  }
  auto saved = std::make_unique<soccr_saved>();
  auto& fields = saved->fields;
  fields.size = sizeof fields;
  fields.state = SOCCR_LISTEN;
  fields.local = local_address(fd);
  fields.backlog = info.tcpi_sacked;
  fields.fastopen = ask<std::uint32_t>(fd, IPPROTO_TCP, TCP_FASTOPEN).value_or(0);
  if (ask<int>(fd, IPPROTO_IPV6, IPV6_V6ONLY).value_or(0) != 0 && fields.local.family == AF_INET6) {
    fields.flags |= SOCCR_V6ONLY;
  }
  if (ask<int>(fd, IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE).value_or(0) != 0) {
    fields.flags |= SOCCR_FASTOPEN_NO_COOKIE;
  }
  fill_buffers(fd, fields);
  validate(fields);
  return saved;
}

}  // namespace soccr
