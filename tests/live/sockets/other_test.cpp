// SPDX-License-Identifier: GPL-2.0-only
// Netlink and packet sockets.
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <unistd.h>

#include "net.hpp"

using namespace live;
using namespace net;

namespace {

sockaddr_nl netlink_name(int fd) {
  sockaddr_nl name{};
  socklen_t size = sizeof name;
  REQUIRE(::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0);
  return name;
}

}  // namespace

LIVE_TEST("netlink: port, groups and options") {
  const int fd = ::socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  const sockaddr_nl own{AF_NETLINK, 0, 0, RTMGRP_LINK | RTMGRP_IPV4_ROUTE};
  REQUIRE(fd >= 0 && ::bind(fd, reinterpret_cast<const sockaddr*>(&own), sizeof own) == 0);
  const int far = 34;
  const bool more = ::setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &far, sizeof far) == 0;
  set_option(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
  set_option(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, 1);
  const auto before = netlink_name(fd);
  checkpoint_here();
  const auto after = netlink_name(fd);
  CHECK_EQ(after.nl_pid, before.nl_pid);
  CHECK_EQ(after.nl_groups, before.nl_groups);
  CHECK_EQ(option(fd, SOL_NETLINK, NETLINK_EXT_ACK), 1);
  CHECK_EQ(option(fd, SOL_NETLINK, NETLINK_NO_ENOBUFS), 1);
  std::uint32_t groups[8]{};
  socklen_t size = sizeof groups;
  CHECK_EQ(::getsockopt(fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, groups, &size), 0);
  CHECK_EQ((groups[1] & 2) != 0, more);
  // It asks and is answered.
  struct {
    nlmsghdr header;
    rtgenmsg body;
  } request{{sizeof request, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 7, 0}, {AF_UNSPEC}};
  CHECK(::send(fd, &request, sizeof request, 0) > 0);
  CHECK(!take(fd).empty());
}

LIVE_TEST("packet: protocol, device, memberships and options") {
  const int fd = ::socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_IP));
  REQUIRE(fd >= 0);
  sockaddr_ll own{};
  own.sll_family = AF_PACKET;
  own.sll_protocol = htons(ETH_P_IP);
  own.sll_ifindex = static_cast<int>(::if_nametoindex("lo"));
  REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&own), sizeof own) == 0);
  const packet_mreq promiscuous{own.sll_ifindex, PACKET_MR_PROMISC, 0, {}};
  REQUIRE(::setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) == 0);
  set_option(fd, SOL_PACKET, PACKET_AUXDATA, 1);
  const int group = 1234 | PACKET_FANOUT_HASH << 16;
  REQUIRE(::setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof group) == 0);
  checkpoint_here();
  sockaddr_ll now{};
  socklen_t size = sizeof now;
  CHECK_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&now), &size), 0);
  CHECK_EQ(now.sll_protocol, own.sll_protocol);
  CHECK_EQ(now.sll_ifindex, own.sll_ifindex);
  CHECK_EQ(option(fd, SOL_PACKET, PACKET_AUXDATA), 1);
  CHECK_EQ(option(fd, SOL_PACKET, PACKET_FANOUT), group);
  CHECK_EQ(::setsockopt(fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, &promiscuous, sizeof promiscuous), 0);
}

LIVE_TEST("packet: a ring") {
  const int fd = ::socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
  REQUIRE(fd >= 0);
  set_option(fd, SOL_PACKET, PACKET_VERSION, TPACKET_V2);
  tpacket_req ring{4096, 4, 2048, 8};
  REQUIRE(::setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring) == 0);
  checkpoint_here();
  CHECK_EQ(option(fd, SOL_PACKET, PACKET_VERSION), TPACKET_V2);
  CHECK_EQ(::setsockopt(fd, SOL_PACKET, PACKET_VERSION, "\2\0\0\0", 4), -1);  // the ring is there
}
