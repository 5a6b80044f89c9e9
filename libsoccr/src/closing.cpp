// SPDX-License-Identifier: LGPL-2.1-only
// A raw socket in the socket's own network namespace sends to the local address. The kernel routes that over the
// loopback device and keeps the route with the packet, so that reverse-path filters do not look at the foreign source.
#include "closing.hpp"

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <chrono>
#include <cstring>
#include <span>
#include <vector>

#include "socket.hpp"

namespace soccr {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto patience = std::chrono::seconds(2);

std::uint32_t sum_up(std::span<const std::uint8_t> bytes, std::uint32_t sum) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += static_cast<std::uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  }
  return sum;
}

std::uint16_t folded(std::uint32_t sum) {
  while (sum >> 16 != 0) {
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<std::uint16_t>(~sum);
}

struct Route {
  std::span<const std::uint8_t> from, to;  // 4 or 16 bytes
  std::uint16_t from_port, to_port;
};

// An IPv4-mapped connection is IPv4 on the wire.
std::span<const std::uint8_t> wire_bytes(const soccr_address& address) {
  in6_addr v6;
  std::memcpy(&v6, address.bytes, sizeof v6);
  const std::span all(address.bytes);
  if (address.family == AF_INET) {
    return all.first(4);
  }
  return IN6_IS_ADDR_V4MAPPED(&v6) ? all.subspan(12) : all;
}

tcphdr tcp_header(const Route& route, const Segment& segment) {
  tcphdr tcp{};
  tcp.source = htons(route.from_port);
  tcp.dest = htons(route.to_port);
  tcp.seq = htonl(segment.seq);
  tcp.ack_seq = htonl(segment.ack);
  tcp.doff = sizeof tcp / 4;
  tcp.ack = 1;
  tcp.fin = segment.fin ? 1 : 0;
  // The window stays closed: the packet must not make the socket send what it has.
  std::uint32_t sum = sum_up(route.from, sum_up(route.to, IPPROTO_TCP + sizeof tcp));
  std::uint8_t bytes[sizeof tcp];
  std::memcpy(bytes, &tcp, sizeof tcp);
  tcp.check = htons(folded(sum_up(bytes, sum)));
  return tcp;
}

template <typename Header>
std::vector<std::byte> packet(const Header& ip, const tcphdr& tcp) {
  std::vector<std::byte> bytes(sizeof ip + sizeof tcp);
  std::memcpy(bytes.data(), &ip, sizeof ip);
  std::memcpy(bytes.data() + sizeof ip, &tcp, sizeof tcp);
  return bytes;
}

std::vector<std::byte> build(const Route& route, const Segment& segment) {
  const auto tcp = tcp_header(route, segment);
  if (route.to.size() == 4) {
    iphdr ip{};  // the kernel fills in length and checksum
    ip.version = 4;
    ip.ihl = sizeof ip / 4;
    ip.ttl = 1;
    ip.protocol = IPPROTO_TCP;
    std::memcpy(&ip.saddr, route.from.data(), 4);
    std::memcpy(&ip.daddr, route.to.data(), 4);
    return packet(ip, tcp);
  }
  ip6_hdr ip{};
  ip.ip6_vfc = 0x60;
  ip.ip6_plen = htons(sizeof tcp);
  ip.ip6_nxt = IPPROTO_TCP;
  ip.ip6_hlim = 1;
  std::memcpy(&ip.ip6_src, route.from.data(), 16);
  std::memcpy(&ip.ip6_dst, route.to.data(), 16);
  return packet(ip, tcp);
}

// The calling thread is in the network namespace of a socket, if it was not already.
class InNamespaceOf {
 public:
  explicit InNamespaceOf(int fd) {
    const base::Fd here(base::check(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
    const auto there_id = ask<std::uint64_t>(fd, SOL_SOCKET, SO_NETNS_COOKIE);
    if (!there_id || there_id == ask<std::uint64_t>(here.get(), SOL_SOCKET, SO_NETNS_COOKIE)) {
      return;
    }
    home_ = namespace_of(here.get());
    const auto there = namespace_of(fd);
    base::check(::setns(there.get(), CLONE_NEWNET), "setns", "network namespace of the socket",
                "call from a thread that is in it");
    away_ = true;
  }
  InNamespaceOf(const InNamespaceOf&) = delete;
  InNamespaceOf& operator=(const InNamespaceOf&) = delete;
  ~InNamespaceOf() {
    if (away_) {
      ::setns(home_.get(), CLONE_NEWNET);  // it was allowed on the way out, and the namespace exists
    }
  }

 private:
  static base::Fd namespace_of(int fd) {
    return base::Fd(base::check(::ioctl(fd, SIOCGSKNS), "SIOCGSKNS", "network namespace of the socket"));
  }

  base::Fd home_;
  bool away_ = false;
};

sockaddr_storage target(const soccr_address& local, bool v4, socklen_t& size) {
  auto address = local;
  address.port = 0;  // a raw socket has none
  if (v4 && address.family == AF_INET6) {
    address = soccr_address{};
    address.family = AF_INET;
    std::memcpy(address.bytes, local.bytes + 12, 4);
  }
  sockaddr_storage storage{};
  size = to_sockaddr(address, storage);
  return storage;
}

// A packet to an address that is not of this machine would leave it. What is ours is its own source.
void require_ours(const sockaddr_storage& to, socklen_t size, const soccr_address& local) {
  const base::Fd probe(base::check(::socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket"));
  set(probe.get(), SOL_SOCKET, SO_MARK, SOCCR_MARK, "SO_MARK");
  auto other = to;
  if (to.ss_family == AF_INET) {
    reinterpret_cast<sockaddr_in&>(other).sin_port = htons(9);
  } else {
    reinterpret_cast<sockaddr_in6&>(other).sin6_port = htons(9);
  }
  bool ours = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&other), size) == 0;
  if (ours) {
    const auto source = local_address(probe.get());
    const auto bytes = std::span(source.bytes).first(source.family == AF_INET ? 4 : 16);
    ours = std::memcmp(bytes.data(), wire_bytes(local).data(), bytes.size()) == 0;
  }
  if (!ours) {
    throw base::Error("restore a closing state", text(local), EADDRNOTAVAIL,
                      "the address must be this machine's own, and not only allowed by IP_FREEBIND or IP_TRANSPARENT");
  }
}

base::Fd raw_socket(int family) {
  base::Fd raw(base::check(::socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW), "raw socket", {},
                           "closing states take CAP_NET_RAW"));
  set(raw.get(), SOL_SOCKET, SO_MARK, SOCCR_MARK, "SO_MARK");
  return raw;
}

// Wakes with every change of a socket's state, whatever there is to read or write.
class Watch {
 public:
  explicit Watch(int fd) : fd_(fd), epoll_(base::check(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    base::check(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
  }
  bool becomes(unsigned state) const {
    const auto end = Clock::now() + patience;
    while (state_of(fd_) != state) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
      epoll_event event;
      if (left <= 0 || ::epoll_wait(epoll_.get(), &event, 1, static_cast<int>(left)) == 0) {
        return state_of(fd_) == state;
      }
    }
    return true;
  }

 private:
  int fd_;
  base::Fd epoll_;
};

}  // namespace

void receive_segment(int fd, const soccr_fields& fields, const Segment& segment, unsigned state) {
  const Route route{wire_bytes(fields.peer), wire_bytes(fields.local), fields.peer.port, fields.local.port};
  const bool v4 = route.to.size() == 4;
  socklen_t size = 0;
  const auto to = target(fields.local, v4, size);
  const auto bytes = build(route, segment);
  const Watch watch(fd);
  {
    const InNamespaceOf there(fd);
    require_ours(to, size, fields.local);
    const auto raw = raw_socket(v4 ? AF_INET : AF_INET6);
    const auto* address = reinterpret_cast<const sockaddr*>(&to);
    base::check(::sendto(raw.get(), bytes.data(), bytes.size(), 0, address, size), "send over the loopback device",
                text(fields.local), "is the device lo up?");
  }
  if (!watch.becomes(state)) {
    throw base::Error("restore a closing state", text(fields.local), ETIMEDOUT,
                      "no packet came over the loopback device; is lo up, and does the firewall let mark 0xC114 pass?");
  }
}

}  // namespace soccr
