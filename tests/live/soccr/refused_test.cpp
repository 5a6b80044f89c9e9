// SPDX-License-Identifier: GPL-2.0-only
// What is not moved, and what a failed move leaves: the peer not reset, no socket half in repair.
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <functional>
#include <optional>
#include <soccr/soccr.hpp>
#include <thread>

#include "lab.hpp"

namespace {

using Catch::Matchers::Contains;

int error_of(const std::function<void()>& call, std::string& text) {
  try {
    call();
  } catch (const soccr::Error& error) {
    text = error.what();
    return error.code().value();
  }
  return 0;
}

int repair_of(int fd) {
  int value = -1;
  socklen_t size = sizeof value;
  REQUIRE(::getsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &value, &size) == 0);
  return value;
}

// The connection is as it was: both directions carry.
void check_alive(lab::Pair& pair) {
  CHECK(repair_of(pair.host.get()) == 0);
  lab::send_all(pair.host.get(), "from the host");
  CHECK(lab::receive(pair.peer.get(), 13) == "from the host");
  lab::send_all(pair.peer.get(), "from the peer");
  CHECK(lab::receive(pair.host.get(), 13) == "from the peer");
}

// A connection that is nowhere, and its peer.
struct Homeless {
  lab::Wire wire;
  lab::Pair pair;
  std::optional<soccr::Saved> saved;
  lab::Silence silence;
  lab::Sniffer tap;

  explicit Homeless(lab::Family family = lab::Family::v4)
      : pair(lab::connect(wire, family)), silence(wire.host), tap(wire.peer) {
    soccr::Socket socket(pair.host.get());
    socket.hold();
    saved = socket.save();
    socket.detach();
    pair.host.reset();
    pair.listener.reset();
  }

  // It is refused in the end, and then put back where it can be: the peer never knew.
  void check_refused(const base::Fd& fd, int code, const char* words) {
    std::string text;
    CHECK(error_of([&] { soccr::Socket::restore(*saved, fd.get()); }, text) == code);
    CHECK_THAT(text, Contains(words));
    CHECK(repair_of(fd.get()) == 0);
    CHECK(lab::state_of(fd.get()) == SOCCR_CLOSED);
    CHECK(tap.packets() == 0);
  }
  void check_recovers() {
    pair.host = lab::open_socket(wire.host, saved->fields().local.family);
    auto socket = soccr::Socket::restore(*saved, pair.host.get());
    silence.lift();
    socket.resume();
    check_alive(pair);
    tap.packets();
    CHECK(tap.resets() == 0);
  }
};

}  // namespace

TEST_CASE("urgent data is refused", "[refused]") {
  const lab::Wire wire;
  for (const bool in_line : {false, true}) {
    for (const bool read : {false, true}) {
      if (in_line && read) {
        continue;
      }
      DYNAMIC_SECTION((in_line ? "in line" : "out of line") << (read ? ", the urgent byte itself read" : "")) {
        auto pair = lab::connect(wire, lab::Family::v4);
        const int on = in_line ? 1 : 0;
        REQUIRE(::setsockopt(pair.host.get(), SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) == 0);
        lab::send_all(pair.peer.get(), "before");
        REQUIRE(::send(pair.peer.get(), "!", 1, MSG_OOB) == 1);
        lab::send_all(pair.peer.get(), "after");
        pollfd urgent{pair.host.get(), POLLPRI, 0};
        REQUIRE(::poll(&urgent, 1, 10000) == 1);
        char byte = 0;
        if (read) {
          REQUIRE(::recv(pair.host.get(), &byte, 1, MSG_OOB) == 1);
        }
        std::string text;
        {
          soccr::Socket socket(pair.host.get());
          socket.hold();
          CHECK(error_of([&] { socket.save(); }, text) == EOPNOTSUPP);
        }
        CHECK_THAT(text, Contains("urgent data"));
        CHECK(lab::receive(pair.host.get(), 6) == "before");
        if (!in_line && !read) {
          CHECK(::recv(pair.host.get(), &byte, 1, MSG_OOB) == 1);
        }
        CHECK(lab::receive(pair.host.get(), in_line ? 6 : 5) == (in_line ? "!after" : "after"));
        soccr::Socket socket(pair.host.get());
        socket.hold();
        socket.save();  // nothing urgent is left
      }
    }
  }
}

TEST_CASE("connections in a listener's queue are refused, or skipped as asked", "[refused]") {
  const lab::Wire wire;
  auto pair = lab::connect(wire, lab::Family::v6);
  auto at = wire.host_address(lab::Family::v6, 0);
  REQUIRE(::getsockname(pair.listener.get(), at.get(), &at.size) == 0);
  auto waiting = lab::open_socket(wire.peer, AF_INET6);
  REQUIRE(::connect(waiting.get(), at.get(), at.size) == 0);
  lab::eventually(
      [&] {
        pollfd ready{pair.listener.get(), POLLIN, 0};
        return ::poll(&ready, 1, 0) == 1;
      },
      "the connection");
  soccr::Socket socket(pair.listener.get());
  socket.hold();  // changes nothing
  std::string text;
  CHECK(error_of([&] { socket.save(); }, text) == EBUSY);
  CHECK_THAT(text, Contains("1 connections wait to be accepted"));
  const auto saved = socket.save(SOCCR_SKIP_PENDING);
  CHECK(saved.fields().state == SOCCR_LISTEN);
  CHECK(saved.fields().backlog == 16);
  // The listener was only looked at.
  const base::Fd accepted(::accept(pair.listener.get(), nullptr, nullptr));
  CHECK(accepted);
  // And its copy listens at the same place, when it is told to.
  socket.detach();
  pair.listener.reset();
  auto fresh = lab::open_socket(wire.host, AF_INET6);
  // The accepted connection has the port, too.
  const int on = 1;
  REQUIRE(::setsockopt(fresh.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
  auto there = soccr::Socket::restore(soccr::Saved::decode(saved.encode()), fresh.get());
  CHECK(there.state() == SOCCR_LISTEN);
  CHECK(lab::state_of(fresh.get()) == SOCCR_CLOSED);
  there.resume();
  CHECK(lab::state_of(fresh.get()) == SOCCR_LISTEN);
  auto other = lab::open_socket(wire.peer, AF_INET6);
  CHECK(::connect(other.get(), at.get(), at.size) == 0);
}

TEST_CASE("SYN_SENT goes on asking", "[states]") {
  const lab::Wire wire;
  for (const auto family : lab::families) {
    DYNAMIC_SECTION(lab::name(family)) {
      auto at = wire.peer_address(family, 7777);
      auto listener = lab::open_socket(wire.peer, at.family());
      REQUIRE(::bind(listener.get(), at.get(), at.size) == 0);
      REQUIRE(::listen(listener.get(), 4) == 0);
      auto from = wire.host_address(family, 0);
      lab::Pair pair;
      pair.host = lab::open_socket(wire.host, at.family());
      soccr::Saved saved = [&] {
        const lab::Silence lost(wire.peer);
        ::fcntl(pair.host.get(), F_SETFL, O_NONBLOCK);
        auto to = at;
        if (family == lab::Family::link_local) {
          reinterpret_cast<sockaddr_in6&>(to.storage).sin6_scope_id =
              reinterpret_cast<sockaddr_in6&>(from.storage).sin6_scope_id;
        }
        REQUIRE(::connect(pair.host.get(), to.get(), to.size) == -1);
        REQUIRE(errno == EINPROGRESS);
        soccr::Socket socket(pair.host.get());
        CHECK(socket.state() == SOCCR_SYN_SENT);
        socket.hold();
        auto taken = socket.save();
        socket.detach();
        pair.host.reset();
        return taken;
      }();
      lab::Sniffer tap(wire.peer);
      pair.host = lab::open_socket(wire.host, at.family());
      auto socket = soccr::Socket::restore(saved, pair.host.get());
      CHECK(socket.state() == SOCCR_SYN_SENT);
      CHECK(tap.packets() == 0);
      socket.resume();
      pollfd ready{pair.host.get(), POLLOUT, 0};
      REQUIRE(::poll(&ready, 1, 20000) == 1);
      CHECK(lab::state_of(pair.host.get()) == SOCCR_ESTABLISHED);
      // The same sequence numbers: what the peer may have half-opened is this connection.
      soccr::Socket now(pair.host.get());
      now.hold();
      CHECK(now.save().fields().outq_seq == saved.fields().outq_seq);
      now.resume();
      pair.peer = base::Fd(::accept(listener.get(), nullptr, nullptr));
      check_alive(pair);
      CHECK(tap.resets() == 0);
    }
  }
}

TEST_CASE("a half-open connection learns of it when it goes on", "[states]") {
  const lab::Wire wire;
  auto pair = lab::connect(wire, lab::Family::v4);
  {
    // The peer forgets, as by a crash: a held socket closes without a word.
    soccr::Socket crash(pair.peer.get());
    crash.hold();
    crash.detach();
    pair.peer.reset();
  }
  soccr::Socket socket(pair.host.get());
  socket.hold();
  const auto saved = socket.save();
  socket.detach();
  pair.host.reset();
  auto fresh = lab::open_socket(wire.host, AF_INET);
  auto there = soccr::Socket::restore(saved, fresh.get());
  CHECK(there.state() == SOCCR_ESTABLISHED);
  there.resume();
  pollfd end{fresh.get(), POLLIN, 0};
  REQUIRE(::poll(&end, 1, 10000) == 1);
  char byte;
  CHECK(::recv(fresh.get(), &byte, 1, 0) == -1);
  CHECK(errno == ECONNRESET);
}

TEST_CASE("what cannot be saved is said", "[refused]") {
  const lab::Wire wire;
  std::string text;
  SECTION("a socket that is not held") {
    auto pair = lab::connect(wire, lab::Family::v4);
    soccr::Socket socket(pair.host.get());
    CHECK(error_of([&] { socket.save(); }, text) == EINVAL);
    CHECK_THAT(text, Contains("soccr_hold"));
    check_alive(pair);
  }
  SECTION("a socket without a connection") {
    auto fd = lab::open_socket(wire.host, AF_INET);
    soccr::Socket socket(fd.get());
    socket.hold();
    CHECK(error_of([&] { socket.save(); }, text) == ENOTCONN);
  }
  SECTION("a connection that was reset") {
    auto pair = lab::connect(wire, lab::Family::v4);
    const linger reset{1, 0};
    REQUIRE(::setsockopt(pair.peer.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    pair.peer.reset();
    lab::wait_for_state(pair.host.get(), SOCCR_CLOSED);
    soccr::Socket socket(pair.host.get());
    socket.hold();
    CHECK(error_of([&] { socket.save(); }, text) == ECONNRESET);
  }
  SECTION("without the privilege") {
    auto pair = lab::connect(wire, lab::Family::v4);
    std::string said;
    int code = 0;
    std::thread([&] {
      // The thread alone loses it.
      if (::syscall(SYS_setresuid, 65534, 65534, 65534) == 0) {
        soccr::Socket socket(pair.host.get());
        code = error_of([&] { socket.hold(); }, said);
      }
    }).join();
    CHECK(code == EPERM);
    CHECK_THAT(said, Contains("CAP_NET_ADMIN"));
    check_alive(pair);
  }
}

TEST_CASE("a failed restore leaves nothing behind", "[refused]") {
  SECTION("the address is not on this machine") {
    Homeless lost;
    lost.wire.host.shell("ip addr del 10.9.0.1/24 dev wire");
    lost.check_refused(lab::open_socket(lost.wire.host, AF_INET), EADDRNOTAVAIL, "not on this machine");
    lost.wire.host.shell("ip addr add 10.9.0.1/24 dev wire");
    lost.check_recovers();
  }
  SECTION("no route to the peer") {
    Homeless lost;
    lost.wire.host.shell("ip route del 10.9.0.0/24 dev wire");
    lost.check_refused(lab::open_socket(lost.wire.host, AF_INET), ENETUNREACH, "no route");
    lost.wire.host.shell("ip route add 10.9.0.0/24 dev wire");
    lost.check_recovers();
  }
  SECTION("the connection is here already") {
    Homeless lost;
    lost.pair.host = lab::open_socket(lost.wire.host, AF_INET);
    {
      auto first = soccr::Socket::restore(*lost.saved, lost.pair.host.get());
      lost.check_refused(lab::open_socket(lost.wire.host, AF_INET), EADDRINUSE, "exists on this machine already");
    }
    lost.check_recovers();
  }
  SECTION("the socket is of the other family") {
    Homeless lost;
    lost.check_refused(lab::open_socket(lost.wire.host, AF_INET6), EINVAL, "other family");
    lost.check_recovers();
  }
  SECTION("the socket is bound elsewhere") {
    Homeless lost(lab::Family::v6);
    auto fd = lab::open_socket(lost.wire.host, AF_INET6);
    auto at = lost.wire.host_address(lab::Family::v6, 4242);
    REQUIRE(::bind(fd.get(), at.get(), at.size) == 0);
    lost.check_refused(fd, EINVAL, "is bound to [fd09::1]:4242");
    lost.check_recovers();
  }
}

TEST_CASE("a restored connection that nobody resumes is dropped without a word", "[refused]") {
  Homeless lost;
  auto fd = lab::open_socket(lost.wire.host, AF_INET);
  {
    const auto socket = soccr::Socket::restore(*lost.saved, fd.get());
    CHECK(lab::state_of(fd.get()) == SOCCR_ESTABLISHED);
  }
  CHECK(lab::state_of(fd.get()) == SOCCR_CLOSED);
  CHECK(repair_of(fd.get()) == 0);
  CHECK(lost.tap.packets() == 0);
  lost.check_recovers();
}

TEST_CASE("a closing state needs the loopback device, and says so", "[refused]") {
  const lab::Wire wire;
  auto pair = lab::connect(wire, lab::Family::v4);
  REQUIRE(::shutdown(pair.peer.get(), SHUT_WR) == 0);
  lab::wait_for_state(pair.host.get(), SOCCR_CLOSE_WAIT);
  lab::Silence silence(wire.host);
  soccr::Socket socket(pair.host.get());
  socket.hold();
  const auto saved = socket.save();
  socket.detach();
  pair.host.reset();
  lab::Sniffer tap(wire.peer);
  std::string text;
  pair.host = lab::open_socket(wire.host, AF_INET);
  const auto restore = [&] { return soccr::Socket::restore(saved, pair.host.get()); };
  SECTION("it is down") {
    wire.host.shell("ip link set lo down");
    CHECK(error_of(restore, text) != 0);
    CHECK_THAT(text, Contains("lo"));
    wire.host.shell("ip link set lo up");
  }
  SECTION("a firewall swallows the packets") {
    wire.host.shell("nft 'table inet wall { chain input { type filter hook input priority 5; iifname lo drop; }; }'");
    CHECK(error_of(restore, text) == ETIMEDOUT);
    CHECK_THAT(text, Contains("0xC114"));
    wire.host.shell("nft delete table inet wall");
  }
  CHECK(repair_of(pair.host.get()) == 0);
  CHECK(tap.packets() == 0);
  pair.host = lab::open_socket(wire.host, AF_INET);
  auto there = restore();
  silence.lift();
  there.resume();
  lab::send_all(pair.host.get(), "after the end");
  CHECK(lab::receive(pair.peer.get(), 13) == "after the end");
}

TEST_CASE("an address that is only allowed here", "[places]") {
  // As a transparent proxy has it: the connection can be put back, but in a closing state only with the address.
  Homeless lost;
  lost.wire.host.shell("ip addr del 10.9.0.1/24 dev wire && ip addr add 10.9.0.9/24 dev wire");
  auto fd = lab::open_socket(lost.wire.host, AF_INET);
  const int on = 1;
  REQUIRE(::setsockopt(fd.get(), IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on) == 0);
  auto closing = lost.saved->fields();
  closing.state = SOCCR_CLOSE_WAIT;
  ++closing.inq_seq;
  const soccr::Saved half(closing, nullptr, nullptr);
  std::string text;
  CHECK(error_of([&] { soccr::Socket::restore(half, fd.get()); }, text) == EADDRNOTAVAIL);
  CHECK_THAT(text, Contains("machine's own"));
  CHECK(lost.tap.packets() == 0);
  auto other = lab::open_socket(lost.wire.host, AF_INET);
  REQUIRE(::setsockopt(other.get(), IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on) == 0);
  auto socket = soccr::Socket::restore(*lost.saved, other.get());
  socket.resume(SOCCR_QUIET);
  lab::send_all(other.get(), "out");
  CHECK(lab::receive(lost.pair.peer.get(), 3) == "out");
}

TEST_CASE("the library makes the socket where its caller is", "[places]") {
  Homeless lost;
  std::optional<soccr::Socket> socket;
  lost.wire.host.run([&] { socket = soccr::Socket::restore(*lost.saved); });
  lost.silence.lift();
  socket->resume();
  lost.pair.host = base::Fd(::dup(socket->fd()));
  socket.reset();
  check_alive(lost.pair);
}
