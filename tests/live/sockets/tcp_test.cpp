// SPDX-License-Identifier: GPL-2.0-only
// TCP connections: to the outside, inside the tree, in all states, with data.
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "net.hpp"

using namespace live;
using namespace net;

namespace {

const Options with_outside{.dump = {"--tcp-established"}, .restore = {"--tcp-established"}, .outside = serve};
const Options established{.dump = {"--tcp-established"}, .restore = {"--tcp-established"}};

struct Pair {
  int client, server, listener;
};

Pair make_pair(int family = AF_INET) {
  Pair pair{};
  pair.listener = bound(family, SOCK_STREAM);
  REQUIRE(::listen(pair.listener, 5) == 0);
  pair.client = connected_to(port_of(pair.listener), family);
  pair.server = ::accept(pair.listener, nullptr, nullptr);
  REQUIRE(pair.server >= 0);
  return pair;
}

int state_of_tcp(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  return ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_state : -1;
}

void wait_state(int fd, int state) {
  await([&] { return state_of_tcp(fd) == state; }, "the connection reaches its state");
}

// Sends until nothing goes any more.
std::size_t fill(int fd) {
  std::size_t sent = 0;
  const std::string block(65536, 'y');
  for (ssize_t part = 0; (part = ::send(fd, block.data(), block.size(), MSG_DONTWAIT)) > 0;) {
    sent += static_cast<std::size_t>(part);
  }
  return sent;
}

sockaddr_un control_address() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto path = outside("control");
  REQUIRE(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

// A server whose queue of connections is full until it is told to begin; it echoes what the last one sends.
void serve_late() {
  const int listener = bound_anywhere(SOCK_STREAM);
  REQUIRE(::listen(listener, 0) == 0);
  const int first = connected_to(port_of(listener));
  const int control = ::socket(AF_UNIX, SOCK_DGRAM, 0);
  const auto address = control_address();
  REQUIRE(first >= 0 && ::bind(control, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
          ::chmod(address.sun_path, 0666) == 0);  // for the root of a user namespace, who is nobody here
  write_text(outside("port"), std::to_string(port_of(listener)));
  outside_ready();
  char byte = 0;
  REQUIRE(::recv(control, &byte, 1, 0) == 1);
  REQUIRE(::accept(listener, nullptr, nullptr) >= 0);
  const int caller = ::accept(listener, nullptr, nullptr);
  put(caller, take_all(caller, 5));
  REQUIRE(::recv(control, &byte, 1, 0) == 1);  // never: it goes with the test
}

void begin_to_serve(int control) {
  const auto address = control_address();
  REQUIRE(::sendto(control, "x", 1, 0, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 1);
}

}  // namespace

LIVE_TEST("tcp: --tcp-established is named where it is missing",
          {.dump_fails = "--tcp-established saves it", .outside = serve}) {
  const int fd = connected_to(outside_address(outside_port()));
  checkpoint_here();
  put(fd, "echo");
  CHECK_EQ(take_all(fd, 4), "echo");
}

LIVE_TEST("tcp: a connection to the outside", with_outside) {
  const int fd = connected_to(outside_address(outside_port()));
  put(fd, "before");
  REQUIRE(take_all(fd, 6) == "before");
  const auto names = own_address(fd) + peer_address(fd);
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  checkpoint_here();
  CHECK_EQ(own_address(fd) + peer_address(fd), names);
  CHECK_EQ(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
  put(fd, "after");
  CHECK_EQ(take_all(fd, 5), "after");
}

LIVE_TEST("tcp: unread data and unacknowledged data", with_outside) {
  const int fd = connected_to(outside_address(outside_port()));
  put(fd, "unread");
  pollfd poll{fd, POLLIN, 0};
  REQUIRE(::poll(&poll, 1, 10000) == 1);
  int waiting = 0;
  await([&] { return ::ioctl(fd, FIONREAD, &waiting) == 0 && waiting == 6; }, "the echo is there");
  checkpoint_here();
  CHECK_EQ(take_all(fd, 6), "unread");
  const std::string large(300000, 'x');
  put(fd, large);
  CHECK_EQ(take_all(fd, large.size()).size(), large.size());
}

LIVE_TEST("tcp: both ends in the tree, data both ways, full queues", established) {
  for (const int family : {AF_INET, AF_INET6}) {
    const auto pair = make_pair(family);
    put(pair.client, "to the server");
    put(pair.server, "to the client");
    ::close(pair.listener);
    ::dup2(pair.client, family == AF_INET ? 40 : 42);
    ::dup2(pair.server, family == AF_INET ? 41 : 43);
    ::close(pair.client);
    ::close(pair.server);
  }
  const auto full = make_pair();
  const auto sent = fill(full.client);
  checkpoint_here();
  for (int fd = 40; fd < 44; fd += 2) {
    CHECK_EQ(take_all(fd + 1, 13), "to the server");
    CHECK_EQ(take_all(fd, 13), "to the client");
    put(fd, "again");
    CHECK_EQ(take_all(fd + 1, 5), "again");
  }
  CHECK_EQ(take_all(full.server, sent).size(), sent);
}

LIVE_TEST("tcp: a connection between two tasks", established) {
  const auto pair = make_pair();
  Child child([&] {
    ::close(pair.client);
    checkpoint_here();
    CHECK_EQ(take_all(pair.server, 4), "ping");
    put(pair.server, "pong");
  });
  ::close(pair.server);
  checkpoint_here();
  put(pair.client, "ping");
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(take_all(pair.client, 4), "pong");
}

LIVE_TEST("tcp: half closed, either way", established) {
  const auto ours = make_pair();
  put(ours.client, "the end");
  REQUIRE(::shutdown(ours.client, SHUT_WR) == 0);
  wait_state(ours.client, TCP_FIN_WAIT2);
  wait_state(ours.server, TCP_CLOSE_WAIT);
  checkpoint_here();
  CHECK_EQ(take_all(ours.server, 7), "the end");
  CHECK_EQ(take(ours.server), "");
  put(ours.server, "still talking");
  CHECK_EQ(take_all(ours.client, 13), "still talking");
  CHECK_EQ(::close(ours.server), 0);
  CHECK_EQ(take_all(ours.client, 1), "");
}

LIVE_TEST("tcp: FIN_WAIT_1, LAST_ACK and CLOSING, with data that nobody has read yet", established) {
  struct Case {
    bool peer_first, peer_later;  // whether the peer has closed its side, before and after
    int state;
  };
  std::vector<Pair> pairs;
  std::vector<std::size_t> sent;
  const std::vector<Case> cases{{false, false, TCP_FIN_WAIT1}, {true, false, TCP_LAST_ACK}, {false, true, TCP_CLOSING}};
  for (const auto& one : cases) {
    auto pair = make_pair();
    if (one.peer_first) {
      REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
      wait_state(pair.client, TCP_CLOSE_WAIT);
    }
    sent.push_back(fill(pair.client));
    REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
    if (one.peer_later) {
      REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
    }
    wait_state(pair.client, one.state);
    pairs.push_back(pair);
  }
  checkpoint_here();
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CHECK_EQ(state_of_tcp(pairs[i].client), cases[i].state);
    CHECK_EQ(take_all(pairs[i].server, sent[i] + 1).size(), sent[i]);
    if (!cases[i].peer_first && !cases[i].peer_later) {
      put(pairs[i].server, "the last word");
      CHECK_EQ(take_all(pairs[i].client, 13), "the last word");
      CHECK_EQ(::shutdown(pairs[i].server, SHUT_WR), 0);
    }
    CHECK_EQ(take_all(pairs[i].client, 1), "");
  }
}

LIVE_TEST("tcp: over on both sides", established) {
  const auto pair = make_pair();
  put(pair.client, "the end");
  REQUIRE(::shutdown(pair.client, SHUT_WR) == 0);
  wait_state(pair.server, TCP_CLOSE_WAIT);
  REQUIRE(::shutdown(pair.server, SHUT_WR) == 0);
  wait_state(pair.server, TCP_CLOSE);
  checkpoint_here();
  CHECK_EQ(take_all(pair.server, 8), "the end");
  CHECK_EQ(take(pair.client), "");
  for (const int fd : {pair.client, pair.server}) {
    CHECK_EQ(::send(fd, "x", 1, MSG_NOSIGNAL), -1);
    CHECK_EQ(errno, EPIPE);
  }
}

LIVE_TEST("tcp: a call that nobody has answered yet (SYN_SENT)",
          {.dump = {"--tcp-established"}, .restore = {"--tcp-established"}, .outside = serve_late}) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int control = ::socket(AF_UNIX, SOCK_DGRAM, 0);
  const auto there = outside_address(outside_port());
  REQUIRE(::connect(fd, reinterpret_cast<const sockaddr*>(&there), sizeof there) == -1 && errno == EINPROGRESS);
  REQUIRE(state_of_tcp(fd) == TCP_SYN_SENT);
  checkpoint_here();
  CHECK_EQ(state_of_tcp(fd), TCP_SYN_SENT);
  begin_to_serve(control);
  pollfd poll{fd, POLLOUT, 0};
  CHECK_EQ(::poll(&poll, 1, 20000), 1);
  CHECK_EQ(option(fd, SOL_SOCKET, SO_ERROR), 0);
  put(fd, "hello");
  CHECK_EQ(take_all(fd, 5), "hello");
}

LIVE_TEST("tcp: a connection that only a queue holds", with_outside) {
  int carrier[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, carrier) == 0);
  const int fd = connected_to(outside_address(outside_port()));
  const auto names = own_address(fd) + peer_address(fd);
  put(fd, "before");
  REQUIRE(take_all(fd, 6) == "before");
  send_fd(carrier[0], fd, "a connection");
  ::close(fd);
  checkpoint_here();
  const auto parcel = receive_parcel(carrier[1]);
  CHECK_EQ(parcel.text, "a connection");
  CHECK_EQ(own_address(parcel.fd) + peer_address(parcel.fd), names);
  put(parcel.fd, "after");
  CHECK_EQ(take_all(parcel.fd, 5), "after");
}

LIVE_TEST("tcp: a connection that tasks share, IPv4 over an IPv6 socket", established) {
  const int listener = ::socket(AF_INET6, SOCK_STREAM, 0);
  const sockaddr_in6 anywhere{AF_INET6, 0, 0, {}, 0};
  REQUIRE(::bind(listener, reinterpret_cast<const sockaddr*>(&anywhere), sizeof anywhere) == 0);
  REQUIRE(::listen(listener, 5) == 0);
  const int client = connected_to(port_of(listener));
  const int server = ::accept(listener, nullptr, nullptr);
  REQUIRE(server >= 0 && peer_address(server).starts_with("[::ffff:127.0.0.1]"));
  const auto name = peer_address(server);
  Child child([&] {
    checkpoint_here();
    put(server, "from the child ");
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  put(server, "and the parent");
  CHECK_EQ(take_all(client, 29), "from the child and the parent");
  CHECK_EQ(peer_address(server), name);
}

LIVE_TEST("tcp: --skip-in-flight leaves out who waits to be accepted",
          {.dump = {"--tcp-established", "--skip-in-flight"}, .restore = {"--tcp-established"}, .outside = serve}) {
  const int listener = bound_anywhere(SOCK_STREAM);
  REQUIRE(::listen(listener, 5) == 0);
  const int fd = connected_to(outside_address(outside_port()));
  put(fd, "call " + std::to_string(port_of(listener)) + "\n");
  pollfd poll{listener, POLLIN, 0};
  REQUIRE(::poll(&poll, 1, 10000) == 1);
  checkpoint_here();
  CHECK(connected_to(port_of(listener)) >= 0);
  CHECK(::accept(listener, nullptr, nullptr) >= 0);
}

LIVE_TEST("tcp: restored closed with --tcp-close",
          {.dump = {"--tcp-close"}, .restore = {"--tcp-close"}, .not_dry = true, .outside = serve}) {
  const int fd = connected_to(outside_address(outside_port()));
  checkpoint_here();
  CHECK_EQ(::send(fd, "x", 1, MSG_NOSIGNAL), -1);
  char byte = 0;
  CHECK_EQ(::recv(fd, &byte, 1, MSG_DONTWAIT), 0);
}

LIVE_TEST("tcp: with iptables", {.dump = {"--tcp-established", "--network-lock", "iptables"},
                                 .restore = {"--tcp-established"},
                                 .outside = serve}) {
  const int fd = connected_to(outside_address(outside_port()));
  checkpoint_here();
  put(fd, "after");
  CHECK_EQ(take_all(fd, 5), "after");
}

LIVE_TEST("tcp: without a lock", {.dump = {"--tcp-established", "--network-lock", "skip"},
                                  .restore = {"--tcp-established"},
                                  .outside = serve}) {
  const int fd = connected_to(outside_address(outside_port()));
  checkpoint_here();
  put(fd, "after");
  CHECK_EQ(take_all(fd, 5), "after");
}

LIVE_TEST("tcp: a tampered image is refused",
          {.dump = {"--tcp-established", "--network-lock", "skip"},
           .restore = {"--tcp-established"},
           .restore_fails = "tcp-stream-",
           .tamper =
               [](const std::string& images) {
                 for (const auto& file : std::filesystem::directory_iterator(images)) {
                   if (file.path().filename().string().starts_with("tcp-stream-")) {
                     std::filesystem::resize_file(file.path(), std::filesystem::file_size(file.path()) - 3);
                   }
                 }
               },
           .outside = serve}) {
  const int fd = connected_to(outside_address(outside_port()));
  put(fd, "unread");
  int waiting = 0;
  await([&] { return ::ioctl(fd, FIONREAD, &waiting) == 0 && waiting == 6; }, "the echo is there");
  checkpoint_here();
}
