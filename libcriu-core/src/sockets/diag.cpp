// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/diag.hpp"

#include <linux/inet_diag.h>
#include <linux/netlink_diag.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "kernel/netlink.hpp"

namespace criu::sockets {

namespace {

template <typename Map>
auto find_in(Map& map, std::uint32_t ino) {
  const auto found = map.find(ino);
  return found == map.end() ? nullptr : &found->second;
}

// What a table of sockets in /proc tells.
std::unordered_map<std::uint32_t, InetInfo> listed_in(const char* path) {
  std::unordered_map<std::uint32_t, InetInfo> found;
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    // Slot, both addresses with ports, state, queues, timer, retransmissions, user, timeout, inode.
    std::istringstream words(line);
    std::string skip, peer, state, queues;
    std::uint32_t number = 0;
    if (!(words >> skip >> skip >> peer >> state >> queues >> skip >> skip >> skip >> skip >> number)) {
      continue;
    }
    InetInfo info;
    info.state = static_cast<std::uint8_t>(std::stoul(state, nullptr, 16));
    info.received = static_cast<std::uint32_t>(std::stoul(queues.substr(queues.find(':') + 1), nullptr, 16));
    for (std::size_t i = 0; i < info.peer.size() && 8 * i + 8 <= peer.find(':'); ++i) {
      info.peer[i] = static_cast<std::uint32_t>(std::stoul(peer.substr(8 * i, 8), nullptr, 16));
    }
    found.emplace(number, info);
  }
  return found;
}

// Shows each answer as the header that the family has, and the attributes behind it.
template <typename Header, typename Request, typename Seen>
bool list(const Request& request, const char* what, Seen seen) {
  kernel::Netlink netlink(NETLINK_SOCK_DIAG);
  return netlink.dump(
      SOCK_DIAG_BY_FAMILY, std::as_bytes(std::span(&request, 1)),
      [&](std::span<const std::byte> body) {
        if (body.size() < sizeof(Header)) {
          return;
        }
        Header header{};
        std::memcpy(&header, body.data(), sizeof header);
        constexpr std::size_t aligned = (sizeof(Header) + 3) / 4 * 4;
        seen(header, kernel::Attributes(body.subspan(std::min(aligned, body.size()))));
      },
      what);
}

}  // namespace

void Diagnostics::load_unix() {
  if (unix_loaded_) {
    return;
  }
  unix_loaded_ = true;
  unix_diag_req request{};
  request.sdiag_family = AF_UNIX;
  request.udiag_states = ~0U;
  request.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS | UDIAG_SHOW_RQLEN;
  list<unix_diag_msg>(request, "UNIX sockets", [&](const unix_diag_msg& message, const kernel::Attributes& more) {
    UnixInfo info;
    info.ino = message.udiag_ino;
    info.type = message.udiag_type;
    info.state = message.udiag_state;
    info.shutdown = more.value<std::uint8_t>(UNIX_DIAG_SHUTDOWN).value_or(0);
    const auto peer = more.value<std::uint32_t>(UNIX_DIAG_PEER);
    info.has_peer = peer.has_value();
    info.peer = peer.value_or(0);
    if (const auto name = more.find(UNIX_DIAG_NAME)) {
      info.name.assign(reinterpret_cast<const char*>(name->data()), name->size());
    }
    info.pending = more.words(UNIX_DIAG_ICONS);
    const auto queue = more.value<unix_diag_rqlen>(UNIX_DIAG_RQLEN).value_or(unix_diag_rqlen{});
    info.received = queue.udiag_rqueue;
    info.backlog = queue.udiag_wqueue;
    if (const auto file = more.value<unix_diag_vfs>(UNIX_DIAG_VFS)) {
      bound_.emplace(file->udiag_vfs_ino, std::pair{file->udiag_vfs_dev, info.name});
    }
    if (info.state == listening) {
      for (const auto client : info.pending) {
        waits_at_.emplace(client, info.ino);
      }
    }
    unix_.emplace(info.ino, std::move(info));
  });
}

const UnixInfo* Diagnostics::find_unix(std::uint32_t ino) {
  load_unix();
  return find_in(unix_, ino);
}

std::uint32_t Diagnostics::listener_of(std::uint32_t client) {
  load_unix();
  const auto found = waits_at_.find(client);
  return found == waits_at_.end() ? 0 : found->second;
}

bool Diagnostics::is_bound(std::uint32_t device, std::uint64_t inode, const std::string& path) {
  load_unix();
  const auto [begin, end] = bound_.equal_range(static_cast<std::uint32_t>(inode));
  // Layered filesystems show another device to who asks for a file.
  return std::any_of(begin, end, [&](const auto& known) {
    return known.second.first == device ||
           known.second.second.c_str() == path;  // NOLINT(readability-redundant-string-cstr): up to its first zero
  });
}

const InetInfo* Diagnostics::find_inet(int family, int protocol, std::uint32_t ino) {
  const auto [known, fresh] = inet_.try_emplace({family, protocol});
  if (fresh) {
    inet_diag_req_v2 request{};
    request.sdiag_family = static_cast<std::uint8_t>(family);
    request.sdiag_protocol = static_cast<std::uint8_t>(protocol);
    request.idiag_states = ~0U & ~(1U << time_wait | 1U << syn_received);
    list<inet_diag_msg>(request, "internet sockets",
                        [&sockets = known->second](const inet_diag_msg& message, const kernel::Attributes& more) {
                          InetInfo info;
                          info.state = message.idiag_state;
                          info.shutdown = more.value<std::uint8_t>(INET_DIAG_SHUTDOWN).value_or(0);
                          info.received = message.idiag_rqueue;
                          info.backlog = message.idiag_wqueue;
                          std::copy(std::begin(message.id.idiag_dst), std::end(message.id.idiag_dst),
                                    info.peer.begin());
                          sockets.emplace(message.idiag_inode, info);
                        });
    if (protocol == IPPROTO_RAW && known->second.empty()) {
      known->second = listed_in(family == AF_INET ? "/proc/net/raw" : "/proc/net/raw6");  // there is no module for it
    }
  }
  return find_in(known->second, ino);
}

const InetInfo* Diagnostics::find_ping(int family, std::uint32_t ino) {
  const auto [known, fresh] = inet_.try_emplace({family, family == AF_INET ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6}});
  if (fresh) {
    known->second = listed_in(family == AF_INET ? "/proc/net/icmp" : "/proc/net/icmp6");
  }
  return find_in(known->second, ino);
}

const NetlinkInfo* Diagnostics::find_netlink(std::uint32_t ino) {
  if (!netlink_) {
    netlink_.emplace();
    netlink_diag_req request{};
    request.sdiag_family = AF_NETLINK;
    request.sdiag_protocol = NDIAG_PROTO_ALL;
    request.ndiag_show = NDIAG_SHOW_GROUPS;
    list<netlink_diag_msg>(
        request, "netlink sockets", [&](const netlink_diag_msg& message, const kernel::Attributes& more) {
          netlink_->emplace(message.ndiag_ino,
                            NetlinkInfo{message.ndiag_portid, message.ndiag_dst_portid, message.ndiag_dst_group,
                                        message.ndiag_state, more.words(NETLINK_DIAG_GROUPS)});
        });
  }
  return find_in(*netlink_, ino);
}

const PacketInfo* Diagnostics::find_packet(std::uint32_t ino) {
  if (!packet_) {
    packet_.emplace();
    packet_diag_req request{};
    request.sdiag_family = AF_PACKET;
    request.pdiag_show = PACKET_SHOW_INFO | PACKET_SHOW_MCLIST | PACKET_SHOW_RING_CFG | PACKET_SHOW_FANOUT;
    list<packet_diag_msg>(request, "packet sockets",
                          [&](const packet_diag_msg& message, const kernel::Attributes& more) {
                            PacketInfo info;
                            info.protocol = htons(message.pdiag_num);  // the only one that it tells in host order
                            info.info = more.value<packet_diag_info>(PACKET_DIAG_INFO).value_or(packet_diag_info{});
                            if (const auto memberships = more.find(PACKET_DIAG_MCLIST)) {
                              info.memberships.resize(memberships->size() / sizeof(packet_diag_mclist));
                              if (!info.memberships.empty()) {
                                std::memcpy(info.memberships.data(), memberships->data(),
                                            info.memberships.size() * sizeof(packet_diag_mclist));
                              }
                            }
                            info.rx_ring = more.value<packet_diag_ring>(PACKET_DIAG_RX_RING);
                            info.tx_ring = more.value<packet_diag_ring>(PACKET_DIAG_TX_RING);
                            info.fanout = more.value<std::uint32_t>(PACKET_DIAG_FANOUT);
                            packet_->emplace(message.pdiag_ino, std::move(info));
                          });
  }
  return find_in(*packet_, ino);
}

}  // namespace criu::sockets
