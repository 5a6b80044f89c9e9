// SPDX-License-Identifier: GPL-2.0-only
// A connection in each state, of each family, is moved into another socket; the peer sees no packet meanwhile and finds
// both streams whole.
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <memory>
#include <soccr/soccr.hpp>

#include "lab.hpp"

namespace {

// What the host and the peer have said.
constexpr unsigned from_host = 1, from_peer = 2;

struct Talk {
  std::size_t host_sent = 0, peer_sent = 0;
  std::unique_ptr<lab::Silence> lost;  // what the host sends, until it is lifted
};

struct State {
  enum soccr_state state;
  const char* name;
  bool host_closed, peer_closed;
};

constexpr State states[] = {
    {SOCCR_ESTABLISHED, "ESTABLISHED", false, false},
    {SOCCR_FIN_WAIT_1, "FIN_WAIT_1", true, false},
    {SOCCR_FIN_WAIT_2, "FIN_WAIT_2", true, false},
    {SOCCR_CLOSE_WAIT, "CLOSE_WAIT", false, true},
    {SOCCR_LAST_ACK, "LAST_ACK", true, true},
    {SOCCR_CLOSING, "CLOSING", true, true},
    {SOCCR_CLOSED, "CLOSED", true, true},
};

// Unread data at the host; at the peer, data that is on its way (or lost) where the state can have some.
Talk lead_into(const State& state, const lab::Wire& wire, lab::Pair& pair) {
  Talk talk{5000, 7000, nullptr};
  lab::send_all(pair.peer.get(), lab::stream(0, talk.peer_sent, from_peer));
  const bool acked = state.state == SOCCR_FIN_WAIT_2 || state.state == SOCCR_CLOSED;
  if (state.peer_closed && state.state != SOCCR_CLOSING) {
    REQUIRE(::shutdown(pair.peer.get(), SHUT_WR) == 0);
    lab::wait_for_state(pair.host.get(), SOCCR_CLOSE_WAIT);
  }
  if (!acked) {
    talk.lost = std::make_unique<lab::Silence>(wire.peer);
  }
  lab::send_all(pair.host.get(), lab::stream(0, talk.host_sent, from_host));
  if (state.host_closed) {
    REQUIRE(::shutdown(pair.host.get(), SHUT_WR) == 0);
  }
  if (state.state == SOCCR_CLOSING) {
    REQUIRE(::shutdown(pair.peer.get(), SHUT_WR) == 0);
  }
  lab::wait_for_state(pair.host.get(), state.state);
  // All that the peer said has arrived.
  lab::eventually(
      [&] {
        std::string bytes(talk.peer_sent, 0);
        return ::recv(pair.host.get(), bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT) ==
               static_cast<ssize_t>(talk.peer_sent);
      },
      "the peer's bytes");
  return talk;
}

void finish(const State& state, lab::Pair& pair, const Talk& talk) {
  CHECK(lab::receive(pair.host.get(), talk.peer_sent) == lab::stream(0, talk.peer_sent, from_peer));
  CHECK(lab::receive(pair.peer.get(), talk.host_sent) == lab::stream(0, talk.host_sent, from_host));
  if (!state.host_closed) {
    lab::send_all(pair.host.get(), lab::stream(talk.host_sent, 3000, from_host));
    ::shutdown(pair.host.get(), SHUT_WR);
    CHECK(lab::receive_to_end(pair.peer.get()) == lab::stream(talk.host_sent, 3000, from_host));
  } else {
    CHECK(lab::receive_to_end(pair.peer.get()).empty());
  }
  if (!state.peer_closed) {
    lab::send_all(pair.peer.get(), lab::stream(talk.peer_sent, 3000, from_peer));
    ::shutdown(pair.peer.get(), SHUT_WR);
    CHECK(lab::receive_to_end(pair.host.get()) == lab::stream(talk.peer_sent, 3000, from_peer));
  } else {
    CHECK(lab::receive_to_end(pair.host.get()).empty());
  }
  lab::eventually([&] { return lab::state_of(pair.host.get()) == SOCCR_CLOSED; }, "the end of the host's side");
  lab::eventually([&] { return lab::state_of(pair.peer.get()) == SOCCR_CLOSED; }, "the end of the peer's side");
}

void move(const lab::Wire& wire, lab::Pair& pair, enum soccr_state state, Talk& talk) {
  lab::Silence silence(wire.host);
  soccr::Socket here(pair.host.get());
  here.hold();
  lab::Sniffer wire_tap(wire.peer);
  const auto bytes = here.save().encode();
  here.detach();
  pair.host.reset();
  const auto saved = soccr::Saved::decode(bytes);
  CHECK(saved.encode() == bytes);
  CHECK(saved.fields().state == static_cast<unsigned>(state));
  auto fresh = lab::open_socket(wire.host, saved.fields().local.family);
  auto there = soccr::Socket::restore(saved, fresh.get());
  CHECK(there.state() == state);
  // Long enough for the retransmission timer of a new connection: the hold keeps it quiet.
  CHECK(wire_tap.silent_for(std::chrono::milliseconds(state == SOCCR_ESTABLISHED ? 1200 : 100)));
  // What is held can be saved again, and is the same.
  auto again = there.save();
  auto fields = again.fields();
  CHECK(fields.inq_seq == saved.fields().inq_seq);
  CHECK(fields.outq_seq == saved.fields().outq_seq);
  CHECK(fields.inq_len == saved.fields().inq_len);
  CHECK(fields.outq_len == saved.fields().outq_len);
  CHECK(fields.unsq_len == saved.fields().unsq_len);
  CHECK(fields.options == saved.fields().options);
  if (state != SOCCR_CLOSED) {
    CHECK(fields.snd_wnd == saved.fields().snd_wnd);
    CHECK(fields.snd_wl1 == saved.fields().snd_wl1);
    CHECK(fields.max_window == saved.fields().max_window);
    CHECK(fields.rcv_wnd == saved.fields().rcv_wnd);
    CHECK(fields.rcv_wup == saved.fields().rcv_wup);
  }
  CHECK(fields.mss_clamp == saved.fields().mss_clamp);
  CHECK(fields.snd_wscale == saved.fields().snd_wscale);
  CHECK(fields.rcv_wscale == saved.fields().rcv_wscale);
  CHECK(fields.sndbuf == saved.fields().sndbuf);
  CHECK(fields.rcvbuf == saved.fields().rcvbuf);
  CHECK(fields.buf_lock == saved.fields().buf_lock);
  talk.lost.reset();
  silence.lift();
  there.resume();
  pair.host = std::move(fresh);
}

void in_every_state(lab::Family family, bool active) {
  const lab::Wire wire;
  for (const auto& state : states) {
    DYNAMIC_SECTION(state.name << (active ? ", connected" : ", accepted")) {
      auto pair = lab::connect(wire, family, active);
      lab::Sniffer watch(wire.peer);
      auto talk = lead_into(state, wire, pair);
      move(wire, pair, state.state, talk);
      finish(state, pair, talk);
      watch.packets();
      CHECK(watch.resets() == 0);
    }
  }
}

}  // namespace

TEST_CASE("IPv4, every state, both ends", "[states]") {
  in_every_state(lab::Family::v4, false);
  in_every_state(lab::Family::v4, true);
}

TEST_CASE("IPv6, every state", "[states6]") { in_every_state(lab::Family::v6, false); }
TEST_CASE("IPv4-mapped, every state", "[states mapped]") { in_every_state(lab::Family::mapped, true); }
TEST_CASE("link-local IPv6, every state", "[states link]") { in_every_state(lab::Family::link_local, false); }
