// SPDX-License-Identifier: LGPL-2.1-only
// What the kernel's socket diagnostics tell: asked once for each family, and only when a socket of it is met.
#pragma once

#include <linux/packet_diag.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace criu::sockets {

// States, as the kernel numbers them for all families (and the images too).
enum State : std::uint32_t {
  established = 1,
  syn_sent = 2,
  syn_received = 3,
  fin_wait_1 = 4,
  fin_wait_2 = 5,
  time_wait = 6,
  closed = 7,
  close_wait = 8,
  last_ack = 9,
  listening = 10,
  closing = 11,
};

struct UnixInfo {
  std::uint32_t ino = 0;
  std::uint8_t type = 0;
  std::uint8_t state = 0;
  std::uint8_t shutdown = 0;
  bool has_peer = false;               // though it may be closed, or not accepted yet,
  std::uint32_t peer = 0;              // and then has no number
  std::string name;                    // as in sun_path
  std::vector<std::uint32_t> pending;  // of a listener: who waits to be accepted; 0: closed meanwhile
  std::uint32_t received = 0;          // unread bytes; of a listener: how many wait
  std::uint32_t backlog = 0;           // of a listener; of others: how much of what they sent is not read
};

struct InetInfo {
  std::uint8_t state = 0;
  std::uint8_t shutdown = 0;
  std::uint32_t received = 0;
  std::uint32_t backlog = 0;
  std::array<std::uint32_t, 4> peer{};  // its address, in network order
};

struct NetlinkInfo {
  std::uint32_t portid = 0, dst_portid = 0, dst_group = 0;
  std::uint8_t state = 0;
  std::vector<std::uint32_t> groups;  // bit masks
};

struct PacketInfo {
  std::uint16_t protocol = 0;  // network byte order
  packet_diag_info info{};
  std::vector<packet_diag_mclist> memberships;
  std::optional<packet_diag_ring> rx_ring, tx_ring;
  std::optional<std::uint32_t> fanout;
};

// Of the network namespace of the caller.
class Diagnostics {
 public:
  // nullptr: no such socket, or the kernel does not tell of it (an unbound one, a module that is missing).
  const UnixInfo* find_unix(std::uint32_t ino);
  // The listener in whose queue the client waits; 0: in none.
  std::uint32_t listener_of(std::uint32_t client);
  const InetInfo* find_inet(int family, int protocol, std::uint32_t ino);
  // Datagram sockets of ICMP, which only /proc tells of.
  const InetInfo* find_ping(int family, std::uint32_t ino);
  const NetlinkInfo* find_netlink(std::uint32_t ino);
  const PacketInfo* find_packet(std::uint32_t ino);

  // Whether some socket is bound to this file (its device as the kernel keeps it) or has its name.
  bool is_bound(std::uint32_t device, std::uint64_t inode, const std::string& path);

 private:
  void load_unix();

  bool unix_loaded_ = false;
  std::unordered_map<std::uint32_t, UnixInfo> unix_;
  std::unordered_map<std::uint32_t, std::uint32_t> waits_at_;                            // clients, and the listener
  std::unordered_multimap<std::uint32_t, std::pair<std::uint32_t, std::string>> bound_;  // by inode: device and name
  std::map<std::pair<int, int>, std::unordered_map<std::uint32_t, InetInfo>> inet_;
  std::optional<std::unordered_map<std::uint32_t, NetlinkInfo>> netlink_;
  std::optional<std::unordered_map<std::uint32_t, PacketInfo>> packet_;
};

}  // namespace criu::sockets
