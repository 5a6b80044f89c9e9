// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/datagrams.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "base/kernel.hpp"
#include "log.hpp"
#include "sockets/call.hpp"
#include "sockets/network_lock.hpp"

namespace criu::sockets {

using base::check;
using base::Error;

namespace {

constexpr int patience_ms = 2000;

union Address {
  sockaddr plain;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

socklen_t size_of(const Address& address) {
  return address.plain.sa_family == AF_INET ? sizeof address.v4 : sizeof address.v6;
}

std::string bytes_of(const Address& address) {
  return address.plain.sa_family == AF_INET
             ? std::string(reinterpret_cast<const char*>(&address.v4.sin_addr), sizeof(in_addr))
             : std::string(reinterpret_cast<const char*>(&address.v6.sin6_addr), sizeof(in6_addr));
}

Address address_of(std::string_view bytes, std::uint16_t port) {
  Address address{};
  if (bytes.size() == sizeof(in_addr)) {
    address.v4.sin_family = AF_INET;
    address.v4.sin_port = htons(port);
    std::memcpy(&address.v4.sin_addr, bytes.data(), bytes.size());
  } else {
    address.v6 = {};
    address.v6.sin6_family = AF_INET6;
    address.v6.sin6_port = htons(port);
    std::memcpy(&address.v6.sin6_addr, bytes.data(), sizeof(in6_addr));
  }
  return address;
}

constexpr std::string_view mapped{"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12};

// As it is on the wire: what IPv6 sockets have of IPv4 is IPv4 there.
std::string on_wire(const std::string& bytes) { return bytes.starts_with(mapped) ? bytes.substr(12) : bytes; }

bool is_link_local(const std::string& bytes) {
  return bytes.size() == sizeof(in6_addr) && bytes[0] == '\xfe' && (bytes[1] & '\xc0') == '\x80';
}

// ---- dump -----------------------------------------------------------------------------------------------------------

struct Received {
  Address from{};
  std::string to;
  std::string data;
  std::uint32_t segment = 0;  // of several that came as one
};

void take_control(msghdr& message, Received& received) {
  for (auto* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(&message, control)) {
    const bool v4 = control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_ORIGDSTADDR;
    const bool v6 = control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == base::kernel::ipv6_origdstaddr;
    if (v4 || v6) {
      Address to{};
      std::memcpy(&to, CMSG_DATA(control), v4 ? sizeof to.v4 : sizeof to.v6);
      received.to = bytes_of(to);
    } else if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == base::kernel::udp_gro) {
      int size = 0;
      std::memcpy(&size, CMSG_DATA(control), sizeof size);
      received.segment = static_cast<std::uint32_t>(size);
    }
  }
}

// False at the end of the queue.
bool peek(int fd, std::vector<char>& room, Received& received, const std::string& what) {
  alignas(cmsghdr) char control[1024];
  iovec data{room.data(), room.size()};
  msghdr message{};
  message.msg_name = &received.from;
  message.msg_namelen = sizeof received.from;
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  auto got = ::recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT);
  if (got < 0 && errno != EAGAIN) {
    got = ::recvmsg(fd, &message, MSG_PEEK | MSG_DONTWAIT);  // an error that the network reported comes first
  }
  if (got < 0 && errno == EAGAIN) {
    return false;
  }
  check(got, "look into the queue of", what);
  received.data.assign(room.data(), static_cast<std::size_t>(got));
  take_control(message, received);
  return true;
}

void put(const Received& received, images::inet_sk_entry& entry) {
  const auto size = received.data.size();
  const auto step =
      received.segment == 0 || received.segment > size ? std::max<std::size_t>(size, 1) : received.segment;
  std::size_t at = 0;
  do {
    auto& datagram = *entry.add_datagrams();
    datagram.set_from(bytes_of(received.from));
    datagram.set_port(
        ntohs(received.from.plain.sa_family == AF_INET ? received.from.v4.sin_port : received.from.v6.sin6_port));
    datagram.set_data(received.data.substr(at, step));
    if (!received.to.empty()) {
      datagram.set_to(received.to);
    }
    at += step;
  } while (at < size);
}

// ---- restore --------------------------------------------------------------------------------------------------------

// The checksum of the internet protocols.
class Sum {
 public:
  void add(std::string_view bytes) {
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      sum_ += static_cast<std::uint32_t>(static_cast<std::uint8_t>(bytes[i])) << (i % 2 == 0 ? 8 : 0);
    }
  }
  void add(std::size_t number) { sum_ += (number >> 16) + (number & 0xffff); }
  std::uint16_t folded() const {
    auto sum = sum_;
    while (sum >> 16 != 0) {
      sum = (sum & 0xffff) + (sum >> 16);
    }
    const auto result = static_cast<std::uint16_t>(~sum);
    return result == 0 ? 0xffff : result;  // 0 stands for none
  }

 private:
  std::uint64_t sum_ = 0;
};

template <typename Header>
std::string text_of(const Header& header) {
  return {reinterpret_cast<const char*>(&header), sizeof header};
}

// The packet as it came, from the IP header on; addresses as on the wire.
std::string packet_of(int protocol, const std::string& from, const std::string& to, std::uint16_t own_port,
                      const images::inet_datagram& datagram) {
  const auto size = sizeof(udphdr) + datagram.data().size();
  udphdr udp{};
  udp.source = htons(static_cast<std::uint16_t>(datagram.port()));
  udp.dest = htons(own_port);
  // Where UDP has the length UDP-lite has how much the checksum covers; 0: all.
  udp.len = htons(protocol == IPPROTO_UDPLITE ? 0 : static_cast<std::uint16_t>(size));
  Sum sum;
  sum.add(from);
  sum.add(to);
  sum.add(static_cast<std::size_t>(protocol));
  sum.add(size);
  sum.add(text_of(udp));
  sum.add(datagram.data());
  udp.check = htons(sum.folded());
  const auto payload = text_of(udp) + datagram.data();
  if (to.size() == sizeof(in_addr)) {
    iphdr ip{};  // the kernel fills in length and checksum
    ip.version = 4;
    ip.ihl = sizeof ip / 4;
    ip.ttl = IPDEFTTL;
    ip.protocol = static_cast<std::uint8_t>(protocol);
    std::memcpy(&ip.saddr, from.data(), from.size());
    std::memcpy(&ip.daddr, to.data(), to.size());
    return text_of(ip) + payload;
  }
  ip6_hdr ip{};
  ip.ip6_vfc = 0x60;
  ip.ip6_plen = htons(static_cast<std::uint16_t>(size));
  ip.ip6_nxt = static_cast<std::uint8_t>(protocol);
  ip.ip6_hlim = IPDEFTTL;
  std::memcpy(&ip.ip6_src, from.data(), from.size());
  std::memcpy(&ip.ip6_dst, to.data(), to.size());
  return text_of(ip) + payload;
}

// A packet to an address that is not of this machine would leave it. What is ours is its own source, or can be had.
bool is_ours(const std::string& bytes) {
  constexpr std::uint16_t discard = 9;
  if (bytes.size() == sizeof(in_addr) && (static_cast<std::uint8_t>(bytes[0]) & 0xf0) == 0xe0) {
    return false;
  }
  const auto to = address_of(bytes, discard);
  const base::Fd probe(::socket(to.plain.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  Address own = address_of(bytes, 0);
  socklen_t size = size_of(own);
  // All of 127.0.0.0/8 is, though it has one source. Who may have foreign addresses as well is bound to the device.
  if (!probe || ::bind(probe.get(), &own.plain, size) < 0 || ::connect(probe.get(), &to.plain, size_of(to)) < 0) {
    return false;
  }
  return ::getsockname(probe.get(), &own.plain, &size) == 0 && bytes_of(own) == bytes;
}

// Room for what takes more of it on the way back than it did.
class AmpleRoom {
 public:
  AmpleRoom(int fd, const std::string& what)
      : fd_(fd),
        size_(get(fd, SOL_SOCKET, SO_RCVBUF, what)),
        lock_(try_get(fd, SOL_SOCKET, base::kernel::so_buf_lock).value_or(0)) {
    constexpr int ample = 1 << 30;
    force(fd_, SOL_SOCKET, SO_RCVBUFFORCE, ample);
  }
  ~AmpleRoom() {
    const int half = size_ / 2;  // the kernel doubles what it is given
    force(fd_, SOL_SOCKET, SO_RCVBUFFORCE, half);
    ::setsockopt(fd_, SOL_SOCKET, base::kernel::so_buf_lock, &lock_, sizeof lock_);
  }
  AmpleRoom(const AmpleRoom&) = delete;
  AmpleRoom& operator=(const AmpleRoom&) = delete;

 private:
  int fd_, size_, lock_;
};

// Wakes whenever something comes into a socket, whatever is there already.
class Arrivals {
 public:
  Arrivals(int fd, const std::string& what)
      : fd_(fd), epoll_(check(::epoll_create1(EPOLL_CLOEXEC), "make an epoll descriptor for", what)) {
    epoll_event event{EPOLLIN | EPOLLET, {}};
    check(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), "watch", what);
    held_ = held();
  }
  // Whether one more has come. Usually it has by the time that it is sent.
  bool next() {
    epoll_event event;
    while (held() == held_) {
      if (::epoll_wait(epoll_.get(), &event, 1, patience_ms) == 0) {
        return false;
      }
    }
    held_ = held();
    return true;
  }

 private:
  // The memory of what waits.
  std::uint32_t held() const {
    constexpr int so_meminfo = 55;
    return try_get<std::array<std::uint32_t, 9>>(fd_, SOL_SOCKET, so_meminfo)
        .value_or(std::array<std::uint32_t, 9>{})[0];
  }

  int fd_;
  base::Fd epoll_;
  std::uint32_t held_ = 0;
};

class Injection {
 public:
  Injection(int fd, const images::inet_sk_entry& entry, bool among_others, const std::string& what)
      : fd_(fd), entry_(entry), among_others_(among_others), arrivals_(fd, what) {}

  // Why it could not be put back; empty: it is there.
  std::string put(const images::inet_datagram& datagram) {
    constexpr const char* lost = "it did not come over the loopback device: is a firewall in the way?";
    if (blocked_) {
      return lost;
    }
    const auto from = on_wire(datagram.from());
    const auto to = target(on_wire(datagram.to()), from.size());
    if (is_link_local(from) || to.empty()) {
      return "the loopback device does not bring what was sent over another link or to a group";
    }
    const auto packet =
        packet_of(static_cast<int>(entry_.proto()), from, to, static_cast<std::uint16_t>(entry_.src_port()), datagram);
    if (among_others_) {
      const auto peer = address_of(datagram.from(), static_cast<std::uint16_t>(datagram.port()));
      (void)::connect(fd_, &peer.plain, size_of(peer));  // then the kernel prefers this socket
    }
    const auto sent = send(packet, address_of(to, 0));
    const int error = errno;
    blocked_ = sent && !arrivals_.next();
    if (among_others_) {
      const sockaddr nobody{AF_UNSPEC, {}};
      (void)::connect(fd_, &nobody, sizeof nobody);
    }
    return blocked_ ? lost : sent ? "" : std::strerror(error);
  }

 private:
  // Where to send it: as it was, or to the socket's own address, or to wherever that listens everywhere.
  std::string target(const std::string& was, std::size_t size) {
    std::string own;
    for (const auto word : entry_.src_addr()) {
      own.append(reinterpret_cast<const char*>(&word), sizeof word);
    }
    own.resize(entry_.family() == AF_INET ? sizeof(in_addr) : sizeof(in6_addr));
    own = on_wire(own);
    const bool everywhere = std::all_of(own.begin(), own.end(), [](char byte) { return byte == '\0'; });
    if (was != known_) {
      known_ = was;
      known_ours_ = was.size() == size && is_ours(was);
    }
    if (known_ours_) {
      return was;
    }
    if (!everywhere) {
      return own.size() == size && is_ours(own) ? own : "";
    }
    return size == sizeof(in_addr) ? std::string("\x7f\0\0\1", 4)
                                   : std::string(reinterpret_cast<const char*>(&in6addr_loopback), sizeof(in6_addr));
  }

  bool send(const std::string& packet, const Address& to) {
    auto& raw = to.plain.sa_family == AF_INET ? raw4_ : raw6_;
    if (!raw) {
      raw = base::Fd(::socket(to.plain.sa_family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
      if (!raw) {
        return false;
      }
      ::setsockopt(raw.get(), SOL_SOCKET, SO_MARK, &own_mark, sizeof own_mark);
      // So that nothing leaves the machine, whatever its addresses are by now.
      constexpr char loopback[] = "lo";
      if (to.plain.sa_family == AF_INET) {
        ::setsockopt(raw.get(), SOL_SOCKET, SO_BINDTODEVICE, loopback, sizeof loopback);
      }
    }
    return ::sendto(raw.get(), packet.data(), packet.size(), MSG_DONTWAIT, &to.plain, size_of(to)) >= 0;
  }

  int fd_;
  const images::inet_sk_entry& entry_;
  bool among_others_;
  bool blocked_ = false;  // what did not arrive once will not the next time
  Arrivals arrivals_;
  base::Fd raw4_, raw6_;
  std::string known_;
  bool known_ours_ = false;
};

void check_datagram(const images::inet_datagram& datagram, const images::inet_sk_entry& entry,
                    const std::string& what) {
  const auto size = entry.family() == AF_INET ? sizeof(in_addr) : sizeof(in6_addr);
  if (datagram.from().size() != size || datagram.port() > 0xffff || datagram.data().size() > 0xffff ||
      (datagram.has_to() && datagram.to().size() != sizeof(in_addr) && datagram.to().size() != sizeof(in6_addr))) {
    throw Error("corrupt checkpoint", what + ": a datagram in its queue", 0);
  }
}

}  // namespace

void save_datagrams(int fd, images::inet_sk_entry& entry, const std::string& what) {
  const bool v6 = entry.family() == AF_INET6;
  const Borrowed offset(fd, SOL_SOCKET, SO_PEEK_OFF, 0, what);
  const Borrowed target(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, 1, what);
  const auto target6 =
      v6 ? std::make_unique<Borrowed>(fd, IPPROTO_IPV6, base::kernel::ipv6_origdstaddr, 1, what) : nullptr;
  std::vector<char> room(std::size_t{1} << 16);
  for (Received received; peek(fd, room, received, what); received = {}) {
    put(received, entry);
  }
}

void restore_datagrams(int fd, const images::inet_sk_entry& entry, bool among_others, const std::string& what) {
  if (entry.datagrams_size() == 0) {
    return;
  }
  for (const auto& datagram : entry.datagrams()) {
    check_datagram(datagram, entry, what);
  }
  int lost = 0;
  std::string reason;
  const AmpleRoom room(fd, what);
  Injection injection(fd, entry, among_others, what);
  for (const auto& datagram : entry.datagrams()) {
    if (auto why = injection.put(datagram); !why.empty()) {
      ++lost;
      reason = std::move(why);
    }
  }
  if (lost > 0) {
    LOG_WARN("{}: {} of {} datagrams that waited to be received are lost: {}", what, lost, entry.datagrams_size(),
             reason);
  }
}

}  // namespace criu::sockets
