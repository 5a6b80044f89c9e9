// SPDX-License-Identifier: GPL-2.0-only
// Netlink and packet sockets.
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/mman.h>
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

LIVE_TEST("packet: several sockets share what comes, and options of their own") {
  int sockets[2];
  for (int& fd : sockets) {
    fd = ::socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IPV6));
    sockaddr_ll own{};
    own.sll_family = AF_PACKET;
    own.sll_protocol = htons(ETH_P_IPV6);
    own.sll_ifindex = static_cast<int>(::if_nametoindex("lo"));
    REQUIRE(fd >= 0 && ::bind(fd, reinterpret_cast<sockaddr*>(&own), sizeof own) == 0);
    const int group = 4321 | (PACKET_FANOUT_LB | PACKET_FANOUT_FLAG_DEFRAG) << 16;
    REQUIRE(::setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof group) == 0);
  }
  set_option(sockets[0], SOL_PACKET, PACKET_QDISC_BYPASS, 1);
  set_option(sockets[1], SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
  const auto all = [&] {
    std::string text;
    for (const int fd : sockets) {
      for (const int name : {PACKET_FANOUT, PACKET_QDISC_BYPASS, PACKET_IGNORE_OUTGOING, PACKET_TX_HAS_OFF}) {
        text += std::to_string(option(fd, SOL_PACKET, name)) + " ";
      }
    }
    return text;
  };
  const auto before = all();
  checkpoint_here();
  CHECK_EQ(all(), before);
}

LIVE_TEST("packet: a program that shares packets out is named", {.dump_fails = "by a BPF program"}) {
  const int fd = ::socket(AF_PACKET, SOCK_RAW, htons(ETH_P_IPV6));
  REQUIRE(fd >= 0);
  const int group = 4322 | PACKET_FANOUT_CBPF << 16;
  REQUIRE(::setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &group, sizeof group) == 0);
  checkpoint_here();
  CHECK_EQ(option(fd, SOL_PACKET, PACKET_FANOUT), group);
}

// For local experiments: no packet of any link is of this kind.
constexpr int unheard_of = 0x88b5;

LIVE_TEST("packet: a ring that is mapped is named", {.dump_fails = "is the ring of a packet socket"}) {
  const int fd = ::socket(AF_PACKET, SOCK_RAW, htons(unheard_of));
  REQUIRE(fd >= 0);
  tpacket_req ring{4096, 4, 2048, 8};
  REQUIRE(::setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof ring) == 0);
  auto* mapped = static_cast<char*>(::mmap(nullptr, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  REQUIRE(mapped != MAP_FAILED);
  checkpoint_here();
  CHECK_EQ(static_cast<int>(mapped[0]), TP_STATUS_KERNEL);
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
