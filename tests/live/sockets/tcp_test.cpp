// SPDX-License-Identifier: GPL-2.0-only
// TCP connections: to the outside, inside the tree, in all states, with data.
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

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

void wait_state(int fd, int state) {
  await(
      [&] {
        tcp_info info{};
        socklen_t size = sizeof info;
        return ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_state == state;
      },
      "the connection reaches its state");
}

}  // namespace

LIVE_TEST("tcp: --tcp-established is named where it is missing",
          {.dump_fails = "--tcp-established saves it", .outside = serve}) {
  const int fd = connected_to(outside_port());
  checkpoint_here();
  put(fd, "echo");
  CHECK_EQ(take_all(fd, 4), "echo");
}

LIVE_TEST("tcp: a connection to the outside", with_outside) {
  const int fd = connected_to(outside_port());
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
  const int fd = connected_to(outside_port());
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
  std::size_t sent = 0;
  const std::string block(65536, 'y');
  for (ssize_t part = 0; (part = ::send(full.client, block.data(), block.size(), MSG_DONTWAIT)) > 0;) {
    sent += static_cast<std::size_t>(part);
  }
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

LIVE_TEST("tcp: restored closed with --tcp-close",
          {.dump = {"--tcp-close"}, .restore = {"--tcp-close"}, .not_dry = true, .outside = serve}) {
  const int fd = connected_to(outside_port());
  checkpoint_here();
  CHECK_EQ(::send(fd, "x", 1, MSG_NOSIGNAL), -1);
  char byte = 0;
  CHECK_EQ(::recv(fd, &byte, 1, MSG_DONTWAIT), 0);
}

LIVE_TEST("tcp: with iptables", {.dump = {"--tcp-established", "--network-lock", "iptables"},
                                 .restore = {"--tcp-established"},
                                 .outside = serve}) {
  const int fd = connected_to(outside_port());
  checkpoint_here();
  put(fd, "after");
  CHECK_EQ(take_all(fd, 5), "after");
}

LIVE_TEST("tcp: without a lock", {.dump = {"--tcp-established", "--network-lock", "skip"},
                                  .restore = {"--tcp-established"},
                                  .outside = serve}) {
  const int fd = connected_to(outside_port());
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
  const int fd = connected_to(outside_port());
  put(fd, "unread");
  int waiting = 0;
  await([&] { return ::ioctl(fd, FIONREAD, &waiting) == 0 && waiting == 6; }, "the echo is there");
  checkpoint_here();
}
