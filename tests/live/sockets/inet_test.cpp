// SPDX-License-Identifier: GPL-2.0-only
// IPv4 and IPv6 sockets without a connection: UDP and its kin, raw sockets, TCP that listens or is bound only.
#include <arpa/inet.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "net.hpp"

using namespace live;
using namespace net;

namespace {

constexpr int icmp_filter = 1;     // ICMP_FILTER
constexpr int ipv6_freebind = 78;  // IPV6_FREEBIND

sockaddr_in to_port(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  return address;
}

// To a port of the loopback device, with the family of the sender.
void send_to(int fd, int port, const std::string& text) {
  const auto v4 = to_port(port);
  sockaddr_in6 v6{AF_INET6, htons(static_cast<std::uint16_t>(port)), 0, in6addr_loopback, 0};
  const bool is_v4 = own_address(fd)[0] != '[';
  REQUIRE(::sendto(fd, text.data(), text.size(), 0,
                   is_v4 ? reinterpret_cast<const sockaddr*>(&v4) : reinterpret_cast<const sockaddr*>(&v6),
                   is_v4 ? sizeof v4 : sizeof v6) == static_cast<ssize_t>(text.size()));
}

std::string receive_from(int fd, int& port) {
  std::string room(70000, '\0');
  sockaddr_in6 from{};  // the port is at the same place for both families
  socklen_t size = sizeof from;
  const auto got = ::recvfrom(fd, room.data(), room.size(), MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &size);
  if (got < 0) {
    return std::strerror(errno);
  }
  port = ntohs(from.sin6_port);
  room.resize(static_cast<std::size_t>(got));
  return room;
}

}  // namespace

LIVE_TEST("udp: bound, connected, IPv4 and IPv6") {
  for (const int family : {AF_INET, AF_INET6}) {
    for (const int protocol : {IPPROTO_UDP, IPPROTO_UDPLITE}) {
      const int receiver = bound(family, SOCK_DGRAM, protocol);
      const int sender = bound(family, SOCK_DGRAM, protocol);
      sockaddr_storage peer{};
      socklen_t size = sizeof peer;
      REQUIRE(::getsockname(receiver, reinterpret_cast<sockaddr*>(&peer), &size) == 0);
      REQUIRE(::connect(sender, reinterpret_cast<sockaddr*>(&peer), size) == 0);
    }
  }
  std::string before[8];
  for (int fd = 0; fd < 8; ++fd) {
    before[fd] = own_address(fd + 3) + " " + peer_address(fd + 3);
  }
  checkpoint_here();
  for (int fd = 0; fd < 8; ++fd) {
    CHECK_EQ(own_address(fd + 3) + " " + peer_address(fd + 3), before[fd]);
  }
  for (int fd = 3; fd < 11; fd += 2) {
    put(fd + 1, "hello");
    CHECK_EQ(take_all(fd, 5), "hello");
  }
}

LIVE_TEST("udp: options of every level") {
  const int fd = bound(AF_INET, SOCK_DGRAM);
  set_option(fd, SOL_SOCKET, SO_BROADCAST, 1);
  set_option(fd, SOL_SOCKET, SO_MARK, 77);
  set_option(fd, SOL_SOCKET, SO_PRIORITY, 5);
  set_option(fd, SOL_SOCKET, SO_RCVBUF, 100000);
  set_option(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
  set_option(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
  set_option(fd, IPPROTO_IP, IP_TOS, 0x10);
  set_option(fd, IPPROTO_IP, IP_TTL, 33);
  set_option(fd, IPPROTO_IP, IP_PKTINFO, 1);
  set_option(fd, IPPROTO_IP, IP_FREEBIND, 1);
  set_option(fd, IPPROTO_IP, IP_RECVERR, 1);
  set_option(fd, IPPROTO_IP, IP_RECVTTL, 1);
  set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
  set_option(fd, IPPROTO_IP, IP_MULTICAST_TTL, 9);
  set_option(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 0);
  set_option(fd, IPPROTO_UDP, 103, 500);  // UDP_SEGMENT
  const int v6 = ::socket(AF_INET6, SOCK_DGRAM, 0);
  set_option(v6, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  set_option(v6, IPPROTO_IPV6, IPV6_TCLASS, 0x20);
  set_option(v6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 7);
  set_option(v6, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  const auto all = [&] {
    std::string text = options_of(fd) + options_of(v6);
    for (int name = 1; name < 80; ++name) {
      text += std::to_string(option(fd, IPPROTO_IP, name)) + " " + std::to_string(option(v6, IPPROTO_IPV6, name)) + " ";
    }
    return text + std::to_string(option(fd, IPPROTO_UDP, 103));
  };
  const auto before = all();
  checkpoint_here();
  CHECK_EQ(all(), before);
}

LIVE_TEST("udp: a cork without data, and ends shut down") {
  const int fd = bound(AF_INET, SOCK_DGRAM);
  set_option(fd, IPPROTO_UDP, 1, 1);
  const int deaf = bound(AF_INET, SOCK_DGRAM);
  const auto peer = to_port(port_of(fd));
  REQUIRE(::connect(deaf, reinterpret_cast<const sockaddr*>(&peer), sizeof peer) == 0);
  REQUIRE(::shutdown(deaf, SHUT_RD) == 0);
  checkpoint_here();
  CHECK_EQ(option(fd, IPPROTO_UDP, 1), 1);
  pollfd poll{deaf, POLLRDHUP, 0};
  CHECK_EQ(::poll(&poll, 1, 0), 1);
  CHECK_EQ(poll.revents & POLLRDHUP, POLLRDHUP);
}

LIVE_TEST("udp: a datagram being put together is named", {.dump_fails = "being put together (UDP_CORK)"}) {
  const int fd = bound(AF_INET, SOCK_DGRAM);
  const int receiver = bound(AF_INET, SOCK_DGRAM);
  const auto peer = to_port(port_of(receiver));
  REQUIRE(::connect(fd, reinterpret_cast<const sockaddr*>(&peer), sizeof peer) == 0);
  set_option(fd, IPPROTO_UDP, 1, 1);
  put(fd, "half ");
  checkpoint_here();
  put(fd, "and half");
  set_option(fd, IPPROTO_UDP, 1, 0);
  CHECK_EQ(take_all(receiver, 13), "half and half");
}

LIVE_TEST("udp: multicast groups and their sources") {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  group_req join{::if_nametoindex("lo"), {}};
  REQUIRE(join.gr_interface != 0);
  auto& group = reinterpret_cast<sockaddr_in&>(join.gr_group);
  group.sin_family = AF_INET;
  ::inet_pton(AF_INET, "239.7.7.7", &group.sin_addr);
  REQUIRE(::setsockopt(fd, IPPROTO_IP, MCAST_JOIN_GROUP, &join, sizeof join) == 0);
  group_source_req from{join.gr_interface, {}, {}};
  reinterpret_cast<sockaddr_in&>(from.gsr_group) = group;
  ::inet_pton(AF_INET, "239.7.7.8", &reinterpret_cast<sockaddr_in&>(from.gsr_group).sin_addr);
  reinterpret_cast<sockaddr_in&>(from.gsr_source) = to_port(0);
  REQUIRE(::setsockopt(fd, IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, &from, sizeof from) == 0);
  checkpoint_here();
  CHECK_EQ(::setsockopt(fd, IPPROTO_IP, MCAST_JOIN_GROUP, &join, sizeof join), -1);  // in it already
  CHECK_EQ(errno, EADDRINUSE);
  CHECK_EQ(::setsockopt(fd, IPPROTO_IP, MCAST_LEAVE_SOURCE_GROUP, &from, sizeof from), 0);
}

LIVE_TEST("udp: a filter") {
  const int fd = bound(AF_INET, SOCK_DGRAM);
  sock_filter code[] = {{0x80, 0, 0, 0}, {0x35, 0, 1, 13}, {0x06, 0, 0, 0xffff}, {0x06, 0, 0, 0}};  // 5 bytes or more
  const sock_fprog program{4, code};
  REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
  checkpoint_here();
  const int sender = ::socket(AF_INET, SOCK_DGRAM, 0);
  const auto to = to_port(port_of(fd));
  CHECK_EQ(::sendto(sender, "no", 2, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to), 2);
  CHECK_EQ(::sendto(sender, "long enough", 11, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to), 11);
  CHECK_EQ(take_all(fd, 11), "long enough");
}

LIVE_TEST("udp: datagrams that wait, IPv4, IPv6, mapped and UDP-lite") {
  struct Way {
    int family, protocol, from_family;
  };
  std::vector<int> receivers, senders;
  for (const auto& [family, protocol, from_family] :
       {Way{AF_INET, IPPROTO_UDP, AF_INET}, Way{AF_INET6, IPPROTO_UDP, AF_INET6}, Way{AF_INET6, IPPROTO_UDP, AF_INET},
        Way{AF_INET, IPPROTO_UDPLITE, AF_INET}, Way{AF_INET6, IPPROTO_UDPLITE, AF_INET6}}) {
    const int receiver = ::socket(family, SOCK_DGRAM, protocol);
    sockaddr_storage anywhere{};
    anywhere.ss_family = static_cast<sa_family_t>(family);
    REQUIRE(receiver >= 0 && ::bind(receiver, reinterpret_cast<sockaddr*>(&anywhere), sizeof(sockaddr_in6)) == 0);
    const int sender = bound(from_family, SOCK_DGRAM, protocol);
    send_to(sender, port_of(receiver), "one");
    send_to(sender, port_of(receiver), "");
    send_to(sender, port_of(receiver), std::string(50000, 'x'));
    send_to(sender, port_of(receiver), "odd");
    receivers.push_back(receiver);
    senders.push_back(sender);
  }
  checkpoint_here();
  for (std::size_t i = 0; i < receivers.size(); ++i) {
    for (const auto& text : {std::string("one"), std::string(), std::string(50000, 'x'), std::string("odd")}) {
      int port = 0;
      CHECK_EQ(receive_from(receivers[i], port), text);
      CHECK_EQ(port, port_of(senders[i]));
    }
    CHECK_EQ(take(receivers[i]), "nothing");
    send_to(senders[i], port_of(receivers[i]), "live");
    CHECK_EQ(take_all(receivers[i], 4), "live");
  }
}

LIVE_TEST("udp: datagrams that wait, from before the socket had a peer, of many senders and among several receivers") {
  int receivers[2];
  for (int& receiver : receivers) {
    receiver = ::socket(AF_INET, SOCK_DGRAM, 0);
    set_option(receiver, SOL_SOCKET, SO_REUSEPORT, 1);
    const auto address = to_port(&receiver == &receivers[0] ? 0 : port_of(receivers[0]));
    REQUIRE(::bind(receiver, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  }
  const int connected = bound(AF_INET, SOCK_DGRAM);
  std::vector<int> senders;
  const auto send_all = [&] {
    for (const int sender : senders) {
      send_to(sender, port_of(receivers[0]), "from " + std::to_string(port_of(sender)));
      send_to(sender, port_of(connected), "x" + std::to_string(port_of(sender)));
    }
  };
  for (int i = 0; i < 12; ++i) {
    senders.push_back(bound(AF_INET, SOCK_DGRAM));
  }
  const auto drain = [&] {
    std::string all;
    for (const int receiver : {receivers[0], receivers[1], connected}) {
      for (std::string text; (text = take(receiver)) != "nothing";) {
        all += text + " ";
      }
      all += "; ";
    }
    return all;
  };
  send_all();
  const auto usual = drain();
  REQUIRE(usual.find("from") != std::string::npos);
  send_all();
  const auto peer = to_port(port_of(senders[0]));
  REQUIRE(::connect(connected, reinterpret_cast<const sockaddr*>(&peer), sizeof peer) == 0);
  checkpoint_here();
  CHECK_EQ(drain(), usual);
  CHECK_EQ(peer_address(connected), own_address(senders[0]));
  send_to(senders[1], port_of(connected), "a stranger");
  send_to(senders[0], port_of(connected), "the peer");
  CHECK_EQ(take_all(connected, 8), "the peer");
}

LIVE_TEST("udp: a datagram that waits tells where it was sent to, and its filter does not see it twice") {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  const sockaddr_in anywhere{AF_INET, 0, {}, {}};
  REQUIRE(::bind(fd, reinterpret_cast<const sockaddr*>(&anywhere), sizeof anywhere) == 0);
  set_option(fd, IPPROTO_IP, IP_PKTINFO, 1);
  const int sender = bound(AF_INET, SOCK_DGRAM);
  auto to = to_port(port_of(fd));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 4);
  REQUIRE(::sendto(sender, "hello", 5, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 5);
  sock_filter nothing[] = {{0x06, 0, 0, 0}};
  const sock_fprog program{1, nothing};
  REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0);
  const auto options = options_of(fd);
  checkpoint_here();
  CHECK_EQ(options_of(fd), options);
  alignas(cmsghdr) char control[256]{};
  char room[16];
  iovec data{room, sizeof room};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  CHECK_EQ(::recvmsg(fd, &message, MSG_DONTWAIT), 5);
  const auto* header = CMSG_FIRSTHDR(&message);
  REQUIRE(header != nullptr && header->cmsg_type == IP_PKTINFO);
  in_pktinfo info{};
  std::memcpy(&info, CMSG_DATA(header), sizeof info);
  CHECK_EQ(info.ipi_addr.s_addr, to.sin_addr.s_addr);
  CHECK(CMSG_NXTHDR(&message, const_cast<cmsghdr*>(header)) == nullptr);
}

LIVE_TEST("udp: datagrams that wait are still there when the tree goes on", {.leave_running = true}) {
  const int fd = bound(AF_INET, SOCK_DGRAM);
  const int sender = bound(AF_INET, SOCK_DGRAM);
  send_to(sender, port_of(fd), "one");
  send_to(sender, port_of(fd), "two");
  checkpoint_here();
  CHECK_EQ(take(fd), "one");
  CHECK_EQ(take(fd), "two");
  CHECK_EQ(option(fd, SOL_SOCKET, SO_PEEK_OFF), -1);
}

LIVE_TEST("inet: raw and ICMP sockets that have a peer") {
  const auto echo = [](int fd) {
    const icmphdr request{ICMP_ECHO, 0, htons(0xf7ff), {}};
    return ::send(fd, &request, sizeof request, 0);
  };
  const auto peer = to_port(0);
  const int raw = ::socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  REQUIRE(raw >= 0 && ::connect(raw, reinterpret_cast<const sockaddr*>(&peer), sizeof peer) == 0);
  set_option(raw, SOL_RAW, icmp_filter, ~(1 << ICMP_ECHOREPLY));
  // Not everybody may have one, which depends on net.ipv4.ping_group_range.
  const int ping = ::socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
  REQUIRE(ping < 0 || ::connect(ping, reinterpret_cast<const sockaddr*>(&peer), sizeof peer) == 0);
  const auto name = own_address(ping);
  checkpoint_here();
  CHECK_EQ(own_address(ping), name);
  for (const int fd : {raw, ping}) {
    if (fd >= 0) {
      pollfd poll{fd, POLLIN, 0};
      CHECK_EQ(echo(fd), 8);
      CHECK_EQ(::poll(&poll, 1, 10000), 1);
    }
  }
}

LIVE_TEST("inet: bound to a device, and to an address that is not there") {
  const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
  REQUIRE(::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) == 0);
  const int foreign = ::socket(AF_INET, SOCK_DGRAM, 0);
  set_option(foreign, IPPROTO_IP, IP_FREEBIND, 1);
  auto address = to_port(0);
  ::inet_pton(AF_INET, "192.0.2.77", &address.sin_addr);
  REQUIRE(::bind(foreign, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  const auto name = own_address(foreign);
  const int foreign6 = ::socket(AF_INET6, SOCK_STREAM, 0);
  set_option(foreign6, IPPROTO_IPV6, ipv6_freebind, 1);
  sockaddr_in6 address6{AF_INET6, 0, 0, {}, 0};
  ::inet_pton(AF_INET6, "2001:db8::77", &address6.sin6_addr);
  REQUIRE(::bind(foreign6, reinterpret_cast<sockaddr*>(&address6), sizeof address6) == 0);
  REQUIRE(::listen(foreign6, 1) == 0);
  const auto name6 = own_address(foreign6);
  checkpoint_here();
  CHECK_EQ(own_address(foreign6), name6);
  CHECK_EQ(option(foreign6, IPPROTO_IPV6, ipv6_freebind), 1);
  char device[IF_NAMESIZE]{};
  socklen_t size = sizeof device;
  CHECK_EQ(::getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, &size), 0);
  CHECK_EQ(std::string(device), "lo");
  CHECK_EQ(own_address(foreign), name);
}

LIVE_TEST("inet: raw and ICMP sockets with their filters") {
  const int raw = ::socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
  const int v6 = ::socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6);
  REQUIRE(raw >= 0 && v6 >= 0);
  set_option(raw, SOL_RAW, icmp_filter, 0x55);
  set_option(raw, IPPROTO_IP, IP_HDRINCL, 1);
  icmp6_filter filter;
  std::memset(&filter, 0x33, sizeof filter);
  REQUIRE(::setsockopt(v6, IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter) == 0);
  checkpoint_here();
  CHECK_EQ(option(raw, SOL_RAW, icmp_filter), 0x55);
  CHECK_EQ(option(raw, IPPROTO_IP, IP_HDRINCL), 1);
  icmp6_filter now{};
  socklen_t size = sizeof now;
  CHECK_EQ(::getsockopt(v6, IPPROTO_ICMPV6, ICMP6_FILTER, &now, &size), 0);
  CHECK_EQ(std::memcmp(&now, &filter, sizeof now), 0);
}

LIVE_TEST("tcp: a listener with its backlog, in several tasks") {
  const int listener = bound(AF_INET, SOCK_STREAM);
  REQUIRE(::listen(listener, 3) == 0);
  const int v6 = bound(AF_INET6, SOCK_STREAM);
  REQUIRE(::listen(v6, 3) == 0);
  Child child([&] {
    checkpoint_here();
    const int server = ::accept(listener, nullptr, nullptr);
    CHECK_EQ(take_all(server, 4), "ping");
    put(server, "pong");
  });
  tcp_info info{};
  socklen_t size = sizeof info;
  REQUIRE(::getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 && info.tcpi_sacked == 3);
  checkpoint_here();
  CHECK_EQ(::getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &size), 0);
  CHECK_EQ(info.tcpi_sacked, 3U);
  const int client = connected_to(port_of(listener));
  put(client, "ping");
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(take_all(client, 4), "pong");
  CHECK(connected_to(port_of(v6), AF_INET6) >= 0);
}

LIVE_TEST("tcp: bound only, and fresh") {
  const int fresh = ::socket(AF_INET, SOCK_STREAM, 0);
  const int only = bound(AF_INET, SOCK_STREAM);
  set_option(fresh, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fresh, IPPROTO_TCP, TCP_KEEPIDLE, 77);
  set_option(fresh, SOL_SOCKET, SO_KEEPALIVE, 1);
  REQUIRE(::setsockopt(fresh, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
  const auto name = own_address(only);
  checkpoint_here();
  CHECK_EQ(own_address(only), name);
  CHECK_EQ(option(fresh, IPPROTO_TCP, TCP_NODELAY), 1);
  CHECK_EQ(option(fresh, IPPROTO_TCP, TCP_KEEPIDLE), 77);
  CHECK_EQ(option(fresh, SOL_SOCKET, SO_KEEPALIVE), 1);
  char control[16]{};
  socklen_t size = sizeof control;
  CHECK_EQ(::getsockopt(fresh, IPPROTO_TCP, TCP_CONGESTION, control, &size), 0);
  CHECK_EQ(std::string(control), "reno");
  CHECK_EQ(::listen(only, 1), 0);
  CHECK(connected_to(port_of(only)) >= 0);
}

LIVE_TEST("inet: several sockets on one port") {
  int groups[2][3];
  for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
    auto* group = groups[type - 1];
    for (int i = 0; i < 3; ++i) {
      group[i] = ::socket(AF_INET, type, 0);
      set_option(group[i], SOL_SOCKET, SO_REUSEPORT, 1);
      const auto address = to_port(i == 0 ? 0 : port_of(group[0]));
      REQUIRE(::bind(group[i], reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
      REQUIRE(type == SOCK_DGRAM || ::listen(group[i], 5) == 0);
    }
  }
  const int first = bound(AF_INET, SOCK_STREAM);
  const int second = ::socket(AF_INET, SOCK_STREAM, 0);
  set_option(first, SOL_SOCKET, SO_REUSEADDR, 1);
  set_option(second, SOL_SOCKET, SO_REUSEADDR, 1);
  const auto address = to_port(port_of(first));
  REQUIRE(::bind(second, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  set_option(first, SOL_SOCKET, SO_REUSEADDR, 0);
  checkpoint_here();
  for (const auto& group : groups) {
    for (const int fd : group) {
      CHECK_EQ(own_address(fd), own_address(group[0]));
      CHECK_EQ(option(fd, SOL_SOCKET, SO_REUSEPORT), 1);
      CHECK_EQ(option(fd, SOL_SOCKET, SO_REUSEADDR), 0);
    }
  }
  CHECK_EQ(option(first, SOL_SOCKET, SO_REUSEADDR), 0);
  CHECK_EQ(option(second, SOL_SOCKET, SO_REUSEADDR), 1);
  CHECK_EQ(own_address(first), own_address(second));
  CHECK(connected_to(port_of(groups[0][0])) >= 0);
}

LIVE_TEST("tcp: connections that wait to be accepted are named", {.dump_fails = "--skip-in-flight leaves them out"}) {
  const int listener = bound(AF_INET, SOCK_STREAM);
  REQUIRE(::listen(listener, 5) == 0);
  Child child([&] { checkpoint_here(); });
  const int client = connected_to(port_of(listener));
  REQUIRE(client >= 0);
  checkpoint_here();
  CHECK(::accept(listener, nullptr, nullptr) >= 0);
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("inet: a port that another program took is in the way",
          {.not_contained = true,
           .restore_fails = "another program has taken",
           .tamper = [](const std::string& images) {
             const int port = std::atoi(read_text(images + "/../port").c_str());
             const int taker = ::socket(AF_INET, SOCK_DGRAM, 0);
             const auto address = to_port(port);
             if (port == 0 || ::bind(taker, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
               ::abort();
             }
           }}) {
  const int fd = bound(AF_INET, SOCK_DGRAM);
  write_text(scratch("port"), std::to_string(port_of(fd)));
  checkpoint_here();
}
