// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/tcp_saved.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <net/if.h>
#include <netinet/in.h>
#include <soccr/soccr.h>

#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "log.hpp"
#include "restore_context.hpp"
#include "sockets/diag.hpp"

namespace criu::sockets {

using base::Error;

namespace {

// What TCP_INFO tells and the format has a place for.
constexpr std::uint32_t known_options = SOCCR_OPT_TIMESTAMPS | SOCCR_OPT_SACK | SOCCR_OPT_WSCALE | SOCCR_OPT_ECN;

template <typename Words>
void put_address(const Words& words, bool v6, std::uint8_t* bytes) {
  for (int i = 0; i < std::min(words.size(), v6 ? 4 : 1); ++i) {
    const std::uint32_t word = words.Get(i);
    std::memcpy(bytes + 4 * i, &word, sizeof word);
  }
}

soccr_address address_of(const images::inet_sk_entry& entry, bool local) {
  soccr_address address{};
  const bool v6 = entry.family() == AF_INET6;
  address.family = static_cast<std::uint16_t>(entry.family());
  address.port = static_cast<std::uint16_t>(local ? entry.src_port() : entry.dst_port());
  put_address(local ? entry.src_addr() : entry.dst_addr(), v6, address.bytes);
  if (v6 && entry.has_ifname() && address.bytes[0] == 0xfe && (address.bytes[1] & 0xc0) == 0x80) {
    address.scope_id = ::if_nametoindex(entry.ifname().c_str());
  }
  return address;
}

Saved read_connection(const image::Directory& images, const images::inet_sk_entry& entry) {
  auto reader = images.require(image::type::tcp_stream, entry.ino());
  images::tcp_stream_entry stream;
  if (!reader.next(stream)) {
    throw Error("corrupt image", reader.name() + ": it is empty", 0);
  }
  const auto received = reader.raw(stream.inq_len());
  const auto sent = reader.raw(stream.outq_len());
  if (reader.left() != 0) {
    throw Error("corrupt image", reader.name() + ": there is more than the queues", 0);
  }
  soccr_fields fields{};
  fields.size = sizeof fields;
  fields.state = entry.state();
  fields.flags = stream.soccr_flags() | (stream.has_snd_wnd() ? SOCCR_HAS_WINDOW : 0);
  fields.options = (stream.opt_mask() & known_options) | stream.more_options();
  fields.local = address_of(entry, true);
  fields.peer = address_of(entry, false);
  fields.inq_seq = stream.inq_seq(), fields.inq_len = stream.inq_len();
  fields.outq_seq = stream.outq_seq(), fields.outq_len = stream.outq_len(), fields.unsq_len = stream.unsq_len();
  fields.snd_wscale = stream.snd_wscale(), fields.rcv_wscale = stream.rcv_wscale();
  fields.mss_clamp = stream.mss_clamp();
  fields.timestamp = stream.timestamp();
  fields.snd_wl1 = stream.snd_wl1(), fields.snd_wnd = stream.snd_wnd(), fields.max_window = stream.max_window();
  fields.rcv_wnd = stream.rcv_wnd(), fields.rcv_wup = stream.rcv_wup();
  fields.sndbuf = entry.opts().so_sndbuf(), fields.rcvbuf = entry.opts().so_rcvbuf();
  fields.buf_lock = entry.opts().so_buf_lock();
  soccr_saved* saved = nullptr;
  soccr_error error{};
  if (const int result = soccr_saved_new(&fields, received.data(), sent.data(), &saved, &error); result < 0) {
    throw Error("corrupt image", fmt::format("{}: {}", reader.name(), error.text), result == -ENOMEM ? ENOMEM : 0);
  }
  return Saved(saved);
}

}  // namespace

void SavedFree::operator()(soccr_saved* saved) const { soccr_saved_free(saved); }

bool is_connection(const images::inet_sk_entry& entry) {
  return entry.type() == SOCK_STREAM && (entry.proto() == IPPROTO_TCP || entry.proto() == 0) &&
         entry.state() != listening && entry.dst_port() != 0;
}

Connection ends_of(const images::inet_sk_entry& entry) {
  Connection ends;
  ends.v6 = entry.family() == AF_INET6;
  put_address(entry.src_addr(), ends.v6, ends.local.data());
  put_address(entry.dst_addr(), ends.v6, ends.peer.data());
  ends.local_port = static_cast<std::uint16_t>(entry.src_port());
  ends.peer_port = static_cast<std::uint16_t>(entry.dst_port());
  constexpr std::uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (ends.v6 && std::memcmp(ends.peer.data(), mapped, sizeof mapped) == 0) {
    ends.v6 = false;
    std::copy(ends.local.begin() + sizeof mapped, ends.local.end(), ends.local.begin());
    std::copy(ends.peer.begin() + sizeof mapped, ends.peer.end(), ends.peer.begin());
  }
  return ends;
}

images::tcp_stream_entry stream_of(const soccr_saved& saved) {
  const auto& fields = *soccr_saved_fields(&saved);
  images::tcp_stream_entry stream;
  stream.set_inq_len(fields.inq_len), stream.set_inq_seq(fields.inq_seq);
  stream.set_outq_len(fields.outq_len), stream.set_outq_seq(fields.outq_seq);
  stream.set_unsq_len(fields.unsq_len);
  stream.set_opt_mask(fields.options & known_options);
  stream.set_snd_wscale(fields.snd_wscale);
  stream.set_mss_clamp(fields.mss_clamp);
  if ((fields.options & SOCCR_OPT_WSCALE) != 0) {
    stream.set_rcv_wscale(fields.rcv_wscale);
  }
  if ((fields.options & SOCCR_OPT_TIMESTAMPS) != 0) {
    stream.set_timestamp(fields.timestamp);
  }
  if ((fields.flags & SOCCR_HAS_WINDOW) != 0) {
    stream.set_snd_wl1(fields.snd_wl1), stream.set_snd_wnd(fields.snd_wnd);
    stream.set_max_window(fields.max_window), stream.set_rcv_wnd(fields.rcv_wnd);
    stream.set_rcv_wup(fields.rcv_wup);
  }
  if (const auto more = fields.options & ~known_options; more != 0) {
    stream.set_more_options(more);
  }
  if (const auto more = fields.flags & ~SOCCR_HAS_WINDOW; more != 0) {
    stream.set_soccr_flags(more);
  }
  return stream;
}

SavedConnections::SavedConnections(const RestoreContext& context) {
  const bool closed_at_dump = context.checkpoint.inventory.tcp_close();
  if (closed_at_dump && !context.options.tcp_close) {
    throw Error("cannot restore", "its TCP connections were not saved", 0,
                "they come back closed: Need to set the --tcp-close options.");
  }
  std::size_t notified = 0;
  for (const auto& [key, file] : context.checkpoint.files) {
    if (key.first != images::INETSK || !is_connection(file.isk()) || context.options.tcp_close) {
      continue;
    }
    if (!context.options.tcp_established) {
      throw Error("cannot restore", fmt::format("there are TCP connections, of port {} for one", file.isk().src_port()),
                  0, "--tcp-established restores them, --tcp-close closes them");
    }
    auto saved = read_connection(context.images, file.isk());
    notified += (soccr_saved_fields(saved.get())->options & SOCCR_OPT_ECN) != 0 ? 1 : 0;
    saved_.emplace(file.id(), std::move(saved));
    ends_.push_back(ends_of(file.isk()));
  }
  if (notified > 0) {
    LOG_WARN(
        "{} TCP connections had agreed on explicit congestion notification, which the kernel cannot be told: they "
        "go on without",
        notified);
  }
}

const soccr_saved* SavedConnections::find(std::uint32_t file_id) const {
  const auto found = saved_.find(file_id);
  return found == saved_.end() ? nullptr : found->second.get();
}

}  // namespace criu::sockets
