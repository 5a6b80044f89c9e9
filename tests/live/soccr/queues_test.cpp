// SPDX-License-Identifier: GPL-2.0-only
// What is on its way: queues of all sizes, options, and many connections at once.
#include <linux/filter.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <soccr/soccr.hpp>
#include <thread>

#include "lab.hpp"

namespace {

constexpr unsigned host_words = 1, peer_words = 2;

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  REQUIRE(::getsockopt(fd, level, name, &value, &size) == 0);
  return value;
}

void set_option(int fd, int level, int name, int value) {
  REQUIRE(::setsockopt(fd, level, name, &value, sizeof value) == 0);
}

// Out of the host's socket, which is closed, and into another.
soccr::Saved take(base::Fd& fd) {
  soccr::Socket socket(fd.get());
  socket.hold();
  auto saved = socket.save();
  socket.detach();
  fd.reset();
  return saved;
}

soccr::Socket put(const lab::Wire& wire, const soccr::Saved& saved, base::Fd& fd) {
  fd = lab::open_socket(wire.host, saved.fields().local.family);
  return soccr::Socket::restore(saved, fd.get());
}

struct Written {
  std::size_t host = 0, peer = 0;
};

// Both sides have written all that goes in.
Written fill(lab::Pair& pair) {
  Written written;
  written.peer = lab::send_until_window_closes(pair.peer.get(), peer_words);
  written.host = lab::send_until_window_closes(pair.host.get(), host_words);
  return written;
}

void read_both(lab::Pair& pair, const Written& written) {
  std::string at_peer, at_host;
  std::thread reader([&] { at_peer = lab::receive(pair.peer.get(), written.host); });
  at_host = lab::receive(pair.host.get(), written.peer);
  reader.join();
  CHECK(at_peer == lab::stream(0, written.host, host_words));
  CHECK(at_host == lab::stream(0, written.peer, peer_words));
}

}  // namespace

TEST_CASE("both queues full", "[queues]") {
  const lab::Wire wire;
  for (const auto family : {lab::Family::v4, lab::Family::v6}) {
    for (const bool in_flight : {false, true}) {
      DYNAMIC_SECTION(lab::name(family) << (in_flight ? ", in flight" : ", window closed")) {
        auto pair = lab::connect(wire, family);
        Written written;
        std::unique_ptr<lab::Silence> lost;
        if (in_flight) {
          written.peer = lab::send_until_window_closes(pair.peer.get(), peer_words);
          lost = std::make_unique<lab::Silence>(wire.peer);
          written.host = lab::send_until_full(pair.host.get(), host_words);
        } else {
          written = fill(pair);
        }
        lab::Silence silence(wire.host);
        lab::Sniffer tap(wire.peer);
        tap.packets();
        const auto saved = take(pair.host);
        tap.packets();
        const auto& fields = saved.fields();
        CHECK(fields.inq_len > 0);
        CHECK(fields.outq_len > 0);
        CHECK(fields.unsq_len > 0);
        CHECK((fields.outq_len > fields.unsq_len) == in_flight);
        auto socket = put(wire, saved, pair.host);
        CHECK(tap.silent_for(std::chrono::milliseconds(300)));  // longer than a retransmission takes
        const auto again = socket.save();
        CHECK(again.fields().unsq_len == fields.unsq_len);
        CHECK(again.fields().sndbuf == fields.sndbuf);
        CHECK(again.fields().rcvbuf == fields.rcvbuf);
        CHECK(again.fields().buf_lock == fields.buf_lock);
        silence.lift();
        lost.reset();
        socket.resume();
        read_both(pair, written);
        CHECK(tap.resets() == 0);
      }
    }
  }
}

TEST_CASE("queues larger than the buffers of the new socket", "[queues]") {
  const lab::Wire wire;
  auto pair = lab::connect(wire, lab::Family::v4);
  set_option(pair.host.get(), SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20);
  set_option(pair.host.get(), SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20);
  const auto written = fill(pair);
  lab::Silence silence(wire.host);
  const auto saved = take(pair.host);
  CHECK(saved.fields().outq_len > 4000000);
  CHECK(saved.fields().inq_len > 0);
  // As from an image, which keeps the sizes elsewhere: the new socket's own ones stay.
  auto fields = saved.fields();
  fields.sndbuf = fields.rcvbuf = fields.buf_lock = 0;
  const soccr::Saved plain(fields, saved.inq(), saved.outq());
  pair.host = lab::open_socket(wire.host, AF_INET);
  auto socket = soccr::Socket::restore(plain, pair.host.get());
  // Those of any new connection, and still the kernel's to tune.
  CHECK(option(pair.host.get(), SOL_SOCKET, SO_SNDBUF) < 1 << 20);
  CHECK(option(pair.host.get(), SOL_SOCKET, SO_RCVBUF) < 1 << 20);
  CHECK(option(pair.host.get(), SOL_SOCKET, SO_BUF_LOCK) == 0);
  silence.lift();
  socket.resume();
  read_both(pair, written);
}

TEST_CASE("a connection whose sending is paced", "[queues]") {
  const lab::Wire wire;
  auto pair = lab::connect(wire, lab::Family::v4);
  constexpr int rate = 30'000'000;  // so that the kernel's timer is always about to send some more
  set_option(pair.host.get(), SOL_SOCKET, SO_MAX_PACING_RATE, rate);
  set_option(pair.host.get(), SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20);
  const auto written = lab::send_until_full(pair.host.get(), host_words);
  std::string at_peer;
  soccr::Socket socket(pair.host.get());
  for (int i = 0; i < 5; ++i) {
    at_peer += lab::receive(pair.peer.get(), written / 10);
    // All that comes is dropped from this moment on: the timer is still at work.
    sock_filter drop{BPF_RET | BPF_K, 0, 0, 0};
    const sock_fprog program{1, &drop};
    REQUIRE(::setsockopt(pair.host.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
    socket.hold();
    int unsent = 0;
    REQUIRE(::ioctl(pair.host.get(), SIOCOUTQNSD, &unsent) == 0);
    const auto saved = socket.save();
    CHECK(saved.fields().unsq_len == static_cast<std::uint32_t>(unsent));
    socket.resume();
    REQUIRE(::setsockopt(pair.host.get(), SOL_SOCKET, SO_DETACH_FILTER, &unsent, sizeof unsent) == 0);
  }
  at_peer += lab::receive(pair.peer.get(), written - at_peer.size());
  CHECK(at_peer == lab::stream(0, written, host_words));
}

TEST_CASE("a closing connection with more to say than the peer takes", "[queues]") {
  const lab::Wire wire;
  for (const bool peer_closed : {false, true}) {
    DYNAMIC_SECTION((peer_closed ? "LAST_ACK" : "FIN_WAIT_1") << " with data and FIN unsent") {
      auto pair = lab::connect(wire, lab::Family::v4);
      if (peer_closed) {
        REQUIRE(::shutdown(pair.peer.get(), SHUT_WR) == 0);
        lab::wait_for_state(pair.host.get(), SOCCR_CLOSE_WAIT);
      }
      const auto written = lab::send_until_window_closes(pair.host.get(), host_words);
      REQUIRE(::shutdown(pair.host.get(), SHUT_WR) == 0);
      const auto saved = take(pair.host);
      CHECK(saved.fields().state == (peer_closed ? SOCCR_LAST_ACK : SOCCR_FIN_WAIT_1));
      CHECK((saved.fields().flags & SOCCR_FIN_UNSENT) != 0);
      CHECK(saved.fields().unsq_len > 0);
      auto socket = put(wire, saved, pair.host);
      const auto again = socket.save();
      CHECK(again.fields().flags == saved.fields().flags);
      CHECK(again.fields().unsq_len == saved.fields().unsq_len);
      CHECK(again.fields().outq_seq == saved.fields().outq_seq);
      socket.resume();
      CHECK(lab::receive_to_end(pair.peer.get()) == lab::stream(0, written, host_words));
    }
  }
}

TEST_CASE("negotiated options", "[options]") {
  const lab::Wire wire;
  const auto sysctl = [&](const char* name, int value) {
    for (const auto* side : {&wire.host, &wire.peer}) {
      side->shell("sysctl -qw net.ipv4." + std::string(name) + "=" + std::to_string(value));
    }
  };
  const auto move_and_talk = [&](lab::Pair& pair) {
    auto saved = take(pair.host);
    auto socket = put(wire, saved, pair.host);
    const auto again = socket.save();
    CHECK(again.fields().options == saved.fields().options);
    CHECK(again.fields().mss_clamp == saved.fields().mss_clamp);
    CHECK(again.fields().rcv_wscale == saved.fields().rcv_wscale);
    socket.resume();
    lab::send_all(pair.host.get(), lab::stream(0, 300000, host_words));
    CHECK(lab::receive(pair.peer.get(), 300000) == lab::stream(0, 300000, host_words));
    lab::send_all(pair.peer.get(), lab::stream(0, 300000, peer_words));
    CHECK(lab::receive(pair.host.get(), 300000) == lab::stream(0, 300000, peer_words));
    return saved;
  };
  SECTION("without timestamps") {
    sysctl("tcp_timestamps", 0);
    auto pair = lab::connect(wire, lab::Family::v4);
    sysctl("tcp_timestamps", 1);
    CHECK((move_and_talk(pair).fields().options & SOCCR_OPT_TIMESTAMPS) == 0);
  }
  SECTION("without selective acknowledgements") {
    sysctl("tcp_sack", 0);
    auto pair = lab::connect(wire, lab::Family::v4);
    CHECK((move_and_talk(pair).fields().options & SOCCR_OPT_SACK) == 0);
  }
  SECTION("without window scaling") {
    sysctl("tcp_window_scaling", 0);
    auto pair = lab::connect(wire, lab::Family::v4);
    CHECK((move_and_talk(pair).fields().options & SOCCR_OPT_WSCALE) == 0);
  }
  SECTION("a small segment size") {
    wire.peer.shell("ip link set wire mtu 1300");
    auto pair = lab::connect(wire, lab::Family::v4);
    CHECK(move_and_talk(pair).fields().mss_clamp == 1260);
  }
  SECTION("timestamps in microseconds, where the kernel has them") {
    auto pair = lab::connect(wire, lab::Family::v4, true);
    soccr::Socket socket(pair.host.get());
    socket.hold();
    // An odd value switches the unit, since Linux 6.7.
    set_option(pair.host.get(), IPPROTO_TCP, TCP_TIMESTAMP, option(pair.host.get(), IPPROTO_TCP, TCP_TIMESTAMP) | 1);
    const bool there = (socket.save().fields().options & SOCCR_OPT_USEC_TIMESTAMPS) != 0;
    socket.resume();
    socket.detach();
    if (!there) {
      WARN("skipped: this kernel has no timestamps in microseconds");
    }
    CHECK(((move_and_talk(pair).fields().options & SOCCR_OPT_USEC_TIMESTAMPS) != 0) == there);
  }
}

TEST_CASE("the timestamps go on from where they were, on a host with another clock", "[options]") {
  const lab::Wire wire;
  auto pair = lab::connect(wire, lab::Family::v4);
  auto saved = take(pair.host);
  auto fields = saved.fields();
  // The peer drops what has an older timestamp than it saw (PAWS): a move must not jump back.
  auto socket = put(wire, saved, pair.host);
  const auto elapsed = socket.save().fields().timestamp - fields.timestamp;
  CHECK(elapsed < 60000);
  socket.resume();
  lab::send_all(pair.host.get(), "x");
  CHECK(lab::receive(pair.peer.get(), 1) == "x");
}

TEST_CASE("a hold that ends leaves no trace", "[hold]") {
  const lab::Wire wire;
  auto pair = lab::connect(wire, lab::Family::v6);
  set_option(pair.host.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(pair.host.get(), SOL_SOCKET, SO_OOBINLINE, 1);
  lab::send_all(pair.peer.get(), lab::stream(0, 9000, peer_words));
  lab::eventually(
      [&] {
        int unread = 0;
        return ::ioctl(pair.host.get(), FIONREAD, &unread) == 0 && unread == 9000;
      },
      "the peer's bytes");
  {
    soccr::Socket socket(pair.host.get());
    socket.hold();
    socket.hold();
    char byte;
    CHECK(::recv(pair.host.get(), &byte, 1, MSG_DONTWAIT) == -1);
    CHECK(errno == EPERM);
    socket.save();
  }
  CHECK(option(pair.host.get(), IPPROTO_TCP, TCP_REPAIR) == 0);
  CHECK(option(pair.host.get(), SOL_SOCKET, SO_REUSEADDR) == 1);
  CHECK(option(pair.host.get(), SOL_SOCKET, SO_OOBINLINE) == 1);
  CHECK(lab::receive(pair.host.get(), 9000) == lab::stream(0, 9000, peer_words));
  lab::send_all(pair.host.get(), "still here");
  CHECK(lab::receive(pair.peer.get(), 10) == "still here");
}

TEST_CASE("a held socket says nothing, not even again", "[hold]") {
  const lab::Wire wire;
  auto pair = lab::connect(wire, lab::Family::v4);
  const lab::Silence silence(wire.host);
  lab::send_all(pair.host.get(), "not acknowledged");
  CHECK(lab::receive(pair.peer.get(), 16) == "not acknowledged");
  soccr::Socket socket(pair.host.get());
  socket.hold();
  lab::Sniffer tap(wire.peer);
  CHECK(tap.silent_for(std::chrono::seconds(1)));  // several retransmissions
}

TEST_CASE("a hold passes from one owner to another", "[hold]") {
  const lab::Wire wire;
  auto pair = lab::connect(wire, lab::Family::v4);
  soccr::Socket first(pair.host.get());
  first.hold();
  first.detach();
  CHECK(option(pair.host.get(), IPPROTO_TCP, TCP_REPAIR) == 1);
  soccr::Socket second(pair.host.get());
  second.save();
  second.resume(SOCCR_QUIET);
  CHECK(option(pair.host.get(), IPPROTO_TCP, TCP_REPAIR) == 0);
  lab::send_all(pair.host.get(), "on");
  CHECK(lab::receive(pair.peer.get(), 2) == "on");
}

TEST_CASE("many threads move many connections at once", "[threads]") {
  const lab::Wire wire;
  constexpr int threads = 8, each = 12;
  std::vector<std::string> failures(threads);
  std::vector<std::vector<lab::Pair>> pairs(threads);
  for (auto& some : pairs) {
    for (int i = 0; i < each; ++i) {
      some.push_back(lab::connect(wire, lab::families[i % 4], i % 3 == 0));
    }
  }
  std::vector<std::thread> workers;
  workers.reserve(threads);
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      try {
        for (int round = 0; round < 3; ++round) {
          for (auto& pair : pairs[t]) {
            const auto from = static_cast<std::size_t>(round) * 5000;
            lab::send_all(pair.peer.get(), lab::stream(from, 5000, peer_words));
            lab::send_all(pair.host.get(), lab::stream(from, 5000, host_words));
            if (lab::receive(pair.peer.get(), 5000) != lab::stream(from, 5000, host_words)) {
              throw std::runtime_error("damaged on the way to the peer");
            }
            lab::eventually(
                [&] {
                  int unread = 0;
                  return ::ioctl(pair.host.get(), FIONREAD, &unread) == 0 && unread == 5000;
                },
                "the peer's bytes");
            const auto saved = take(pair.host);
            put(wire, saved, pair.host).resume();
            if (lab::receive(pair.host.get(), 5000) != lab::stream(from, 5000, peer_words)) {
              throw std::runtime_error("damaged on the way from the peer");
            }
          }
        }
      } catch (const std::exception& error) {
        failures[t] = error.what();
      }
    });
  }
  for (auto& worker : workers) {
    worker.join();
  }
  for (const auto& failure : failures) {
    CHECK(failure.empty());
  }
}
