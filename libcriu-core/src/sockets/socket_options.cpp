// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/socket_options.hpp"

#include <linux/filter.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/time.h>

#include <array>

#include "base/kernel.hpp"
#include "log.hpp"

namespace criu::sockets {

using base::check;
using base::Error;

namespace {

namespace k = base::kernel;

// Which sockets have an option.
enum For : unsigned { unix_ones = 1, v4 = 2, v6 = 4, tcp = 8, udp = 16, netlink = 32, packet = 64, raw = 128 };
constexpr unsigned inet = v4 | v6;

unsigned what_it_is(const SocketType& type) {
  unsigned is = 0;
  switch (type.family) {
    case AF_UNIX:
      return unix_ones;
    case AF_NETLINK:
      return netlink;
    case AF_PACKET:
      return packet;
    case AF_INET:
      is = v4;
      break;
    default:
      is = v4 | v6;  // IPv6 sockets have the options of IPv4 too
  }
  if (type.type == SOCK_STREAM) {
    is |= tcp;
  } else if (type.type == SOCK_RAW) {
    is |= raw;
  } else if (type.protocol == IPPROTO_UDP || type.protocol == IPPROTO_UDPLITE || type.protocol == 0) {
    is |= udp;
  }
  return is;
}

// Options that the format has no field for; they travel as the kernel has them.
struct Other {
  int level, option;
  unsigned whose;
  bool late = false;  // changes what is received
};

constexpr Other others[] = {
    {SOL_SOCKET, SO_TIMESTAMPING, unix_ones | udp | raw | packet | tcp, true},
    {SOL_SOCKET, SO_TIMESTAMP, unix_ones | udp | raw | packet | netlink, true},
    {SOL_SOCKET, SO_TIMESTAMPNS, unix_ones | udp | raw | packet, true},
    {SOL_SOCKET, SO_RXQ_OVFL, udp | raw | packet, true},
    {SOL_SOCKET, SO_PEEK_OFF, unix_ones | udp | tcp, true},
    {SOL_SOCKET, k::so_pass_pidfd, unix_ones, true},
    {SOL_SOCKET, k::so_pass_rights, unix_ones, true},
    {SOL_SOCKET, k::so_rcv_mark, udp | raw, true},
    {SOL_SOCKET, k::so_rcv_priority, udp | raw, true},
    {SOL_SOCKET, SO_LOCK_FILTER, udp | raw | packet | tcp | netlink, true},
    {SOL_SOCKET, SO_BUSY_POLL, udp | tcp},
    {SOL_SOCKET, SO_MAX_PACING_RATE, tcp | udp},
    {SOL_SOCKET, SO_ZEROCOPY, tcp | udp},
    {SOL_SOCKET, SO_NOFCS, packet},
    {IPPROTO_IP, IP_OPTIONS, v4},
    {IPPROTO_IP, IP_RECVTTL, udp | raw},
    {IPPROTO_IP, IP_RECVTOS, v4},
    {IPPROTO_IP, IP_RECVOPTS, udp | raw},
    {IPPROTO_IP, IP_RETOPTS, udp | raw},
    {IPPROTO_IP, IP_RECVERR, inet},
    {IPPROTO_IP, IP_MTU_DISCOVER, inet},
    {IPPROTO_IP, IP_MULTICAST_TTL, udp | raw},
    {IPPROTO_IP, IP_MULTICAST_LOOP, udp | raw},
    {IPPROTO_IP, IP_MULTICAST_ALL, udp | raw},
    {IPPROTO_IP, IP_TRANSPARENT, inet},
    {IPPROTO_IP, IP_MINTTL, tcp},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, inet},
    {IPPROTO_IP, IP_RECVORIGDSTADDR, udp | raw},
    {IPPROTO_IP, IP_UNICAST_IF, udp | raw},
    {IPPROTO_IP, IP_CHECKSUM, udp},
    {IPPROTO_IP, k::ip_local_port_range, inet},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, v6},
    {IPPROTO_IPV6, IPV6_TCLASS, v6},
    {IPPROTO_IPV6, IPV6_RECVTCLASS, v6},
    {IPPROTO_IPV6, IPV6_RECVERR, v6},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, v6},
    {IPPROTO_IPV6, k::ipv6_flowinfo_send, v6},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, v6},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, v6},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, udp | raw},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, udp | raw},
    {IPPROTO_IPV6, IPV6_MULTICAST_IF, udp | raw},
    {IPPROTO_IPV6, IPV6_MULTICAST_ALL, udp | raw},
    {IPPROTO_IPV6, IPV6_DONTFRAG, v6},
    {IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, v6},
    {IPPROTO_IPV6, IPV6_MINHOPCOUNT, v6},
    {IPPROTO_TCP, TCP_CONGESTION, tcp},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, tcp},
    {IPPROTO_TCP, TCP_SYNCNT, tcp},
    {IPPROTO_TCP, TCP_LINGER2, tcp},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, tcp},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, tcp},
    {IPPROTO_TCP, TCP_SAVE_SYN, tcp},
    {IPPROTO_TCP, TCP_FASTOPEN, tcp},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, tcp},
    {IPPROTO_TCP, TCP_INQ, tcp},
    {IPPROTO_IP, IP_MULTICAST_IF, udp | raw},
    {IPPROTO_UDP, k::udp_cork, udp},
    {IPPROTO_UDP, k::udp_segment, udp},
    {IPPROTO_UDP, k::udp_gro, udp},
    {IPPROTO_UDP, k::udp_no_check6_tx, udp},
    {IPPROTO_UDP, k::udp_no_check6_rx, udp},
    {k::sol_udplite, k::udplite_send_cscov, udp},
    {k::sol_udplite, k::udplite_recv_cscov, udp},
    {SOL_PACKET, PACKET_TX_HAS_OFF, packet},
    {SOL_PACKET, PACKET_QDISC_BYPASS, packet},
    {SOL_PACKET, PACKET_IGNORE_OUTGOING, packet},
    {SOL_NETLINK, k::netlink_pktinfo, netlink},
    {SOL_NETLINK, k::netlink_broadcast_error, netlink},
    {SOL_NETLINK, k::netlink_no_enobufs, netlink},
    {SOL_NETLINK, k::netlink_listen_all_nsid, netlink},
    {SOL_NETLINK, k::netlink_cap_ack, netlink},
    {SOL_NETLINK, k::netlink_ext_ack, netlink},
    {SOL_NETLINK, k::netlink_get_strict_check, netlink},
};

bool applies(const Other& other, const SocketType& type) {
  if ((other.whose & what_it_is(type)) == 0) {
    return false;
  }
  // Options of another transport, on sockets of the same shape.
  return (other.level != k::sol_udplite || type.protocol == IPPROTO_UDPLITE) &&
         (other.level != IPPROTO_IPV6 || type.family == AF_INET6) &&
         (other.level != IPPROTO_TCP || type.protocol == IPPROTO_TCP || type.protocol == 0);
}

std::optional<std::string> read(int fd, const Other& other) {
  std::array<char, 64> value{};
  socklen_t size = value.size();
  if (::getsockopt(fd, other.level, other.option, value.data(), &size) < 0) {
    return std::nullopt;
  }
  return std::string(value.data(), size);
}

void save_filter(int fd, images::sk_opts_entry& entry, const std::string& what) {
  socklen_t count = 0;
  if (::getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, nullptr, &count) < 0) {
    if (errno == EACCES) {
      throw Error("cannot dump", what + " has an eBPF program as its filter, which the kernel does not give back", 0);
    }
    check(-1, "read the filter of", what);
  }
  if (count == 0) {
    return;
  }
  std::vector<sock_filter> program(count);
  check(::getsockopt(fd, SOL_SOCKET, SO_GET_FILTER, program.data(), &count), "read the filter of", what);
  for (const auto& one : program) {
    entry.add_so_filter(std::uint64_t{one.code} << 48 | std::uint64_t{one.jt} << 40 | std::uint64_t{one.jf} << 32 |
                        one.k);
  }
}

void restore_filter(int fd, const images::sk_opts_entry& entry, const std::string& what) {
  if (entry.so_filter_size() == 0) {
    return;
  }
  if (entry.so_filter_size() > 0xffff) {
    throw Error("corrupt checkpoint", what + ": its filter is too long", 0);
  }
  std::vector<sock_filter> program;
  for (const auto one : entry.so_filter()) {
    program.push_back({static_cast<std::uint16_t>(one >> 48), static_cast<std::uint8_t>(one >> 40),
                       static_cast<std::uint8_t>(one >> 32), static_cast<std::uint32_t>(one)});
  }
  set(fd, SOL_SOCKET, SO_ATTACH_FILTER, sock_fprog{static_cast<unsigned short>(program.size()), program.data()}, what);
}

bool flag(int fd, int option) { return try_get(fd, SOL_SOCKET, option).value_or(0) != 0; }
std::uint32_t value(int fd, int option) {
  return static_cast<std::uint32_t>(try_get(fd, SOL_SOCKET, option).value_or(0));
}

void save_common(int fd, const SocketType& type, images::sk_opts_entry& entry, const std::string& what) {
  const bool local = type.family == AF_UNIX || type.family == AF_NETLINK;
  entry.set_so_sndbuf(value(fd, SO_SNDBUF));
  entry.set_so_rcvbuf(value(fd, SO_RCVBUF));
  const auto send_timeout = get<timeval>(fd, SOL_SOCKET, SO_SNDTIMEO, what);
  entry.set_so_snd_tmo_sec(static_cast<std::uint64_t>(send_timeout.tv_sec));
  entry.set_so_snd_tmo_usec(static_cast<std::uint64_t>(send_timeout.tv_usec));
  const auto receive_timeout = get<timeval>(fd, SOL_SOCKET, SO_RCVTIMEO, what);
  entry.set_so_rcv_tmo_sec(static_cast<std::uint64_t>(receive_timeout.tv_sec));
  entry.set_so_rcv_tmo_usec(static_cast<std::uint64_t>(receive_timeout.tv_usec));
  entry.set_reuseaddr(flag(fd, SO_REUSEADDR));
  entry.set_so_priority(value(fd, SO_PRIORITY));
  entry.set_so_rcvlowat(value(fd, SO_RCVLOWAT));
  if (const auto mark = value(fd, SO_MARK); mark != 0) {
    entry.set_so_mark(mark);
  }
  if (local) {
    entry.set_so_passcred(flag(fd, SO_PASSCRED));
    entry.set_so_passsec(flag(fd, SO_PASSSEC));
  }
  entry.set_so_dontroute(flag(fd, SO_DONTROUTE));
  entry.set_so_no_check(flag(fd, SO_NO_CHECK));
  entry.set_so_reuseport(!local && flag(fd, SO_REUSEPORT));
  entry.set_so_broadcast(flag(fd, SO_BROADCAST));
  entry.set_so_keepalive(flag(fd, SO_KEEPALIVE));
  entry.set_so_oobinline(value(fd, SO_OOBINLINE));
  if (const auto how = get<linger>(fd, SOL_SOCKET, SO_LINGER, what); how.l_onoff != 0) {
    entry.set_so_linger(static_cast<std::uint32_t>(how.l_linger));
  }
  entry.set_so_buf_lock(value(fd, k::so_buf_lock));
  if (!local) {
    std::array<char, 64> device{};
    socklen_t size = device.size();
    if (::getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device.data(), &size) == 0 && size > 1) {
      entry.set_so_bound_dev(std::string(device.data()));
    }
  }
}

void set_timeout(int fd, int option, std::uint64_t seconds, std::uint64_t microseconds, const std::string& what) {
  set(fd, SOL_SOCKET, option, timeval{static_cast<time_t>(seconds), static_cast<suseconds_t>(microseconds)}, what);
}

// As the kernel doubles what it is given. Root of another user namespace may only ask for what all may.
void set_size(int fd, int forced, int plain, std::uint32_t size, const char* name, const std::string& what) {
  const int half = static_cast<int>(size / 2);
  if (force(fd, SOL_SOCKET, forced, half) == 0) {
    return;
  }
  set(fd, SOL_SOCKET, plain, half, what);
  if (value(fd, plain) != size) {
    LOG_WARN("{}: its {} buffer is {} bytes instead of {}", what, name, value(fd, plain), size);
  }
}

void restore_others(int fd, const SocketType& type, const images::sk_opts_entry& entry, bool late,
                    const std::string& what) {
  for (const auto& option : entry.other()) {
    const Other* known = nullptr;
    for (const auto& other : others) {
      if (other.level == option.level() && other.option == option.option() && applies(other, type)) {
        known = &other;
      }
    }
    if (known == nullptr) {
      throw Error("corrupt checkpoint",
                  fmt::format("{}: it has no option {} of level {}", what, option.option(), option.level()), 0);
    }
    if (known->late == late) {
      check(::setsockopt(fd, known->level, known->option, option.value().data(),
                         static_cast<socklen_t>(option.value().size())),
            fmt::format("set option {} of level {} of", known->option, known->level).c_str(), what);
    }
  }
}

}  // namespace

const SocketOptions::Fresh& SocketOptions::fresh(const SocketType& type) {
  const auto [known, added] = fresh_.try_emplace(type);
  if (added) {
    const auto what = fmt::format("a socket of family {}, type {}, protocol {}", type.family, type.type, type.protocol);
    const auto socket = make_socket(type, what);
    save_common(socket.get(), type, known->second.common, what);
    for (const auto& other : others) {
      if (applies(other, type)) {
        if (auto bytes = read(socket.get(), other)) {
          known->second.others.emplace(std::pair{other.level, other.option}, std::move(*bytes));
        }
      }
    }
  }
  return known->second;
}

void SocketOptions::save(int fd, const SocketType& type, images::sk_opts_entry& entry, const std::string& what) {
  save_common(fd, type, entry, what);
  save_filter(fd, entry, what);
  for (const auto& [name, usual] : fresh(type).others) {
    const auto bytes = read(fd, {name.first, name.second, 0});
    if (bytes && *bytes != usual) {
      auto& option = *entry.add_other();
      option.set_level(name.first);
      option.set_option(name.second);
      option.set_value(*bytes);
    }
  }
}

void SocketOptions::restore_early(int fd, const SocketType& type, const images::sk_opts_entry& entry,
                                  const std::string& what) {
  const auto& usual = fresh(type).common;
  if (entry.so_mark() != 0) {
    set(fd, SOL_SOCKET, SO_MARK, entry.so_mark(), what);
  }
  if (entry.so_priority() != usual.so_priority()) {
    set(fd, SOL_SOCKET, SO_PRIORITY, entry.so_priority(), what);
  }
  if (entry.has_so_bound_dev()) {
    const auto& device = entry.so_bound_dev();
    check(::setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device.data(), static_cast<socklen_t>(device.size())),
          "bind to device", fmt::format("{} for {}", device, what));
  }
  const auto set_flag = [&](int option, bool wanted, bool is) {
    if (wanted != is) {
      set(fd, SOL_SOCKET, option, static_cast<int>(wanted), what);
    }
  };
  set_flag(SO_DONTROUTE, entry.so_dontroute(), usual.so_dontroute());
  set_flag(SO_NO_CHECK, entry.so_no_check(), usual.so_no_check());
  set_flag(SO_BROADCAST, entry.so_broadcast(), usual.so_broadcast());
  set_flag(SO_KEEPALIVE, entry.so_keepalive(), usual.so_keepalive());
  set_flag(SO_OOBINLINE, entry.so_oobinline() != 0, usual.so_oobinline() != 0);
  restore_others(fd, type, entry, false, what);
}

void SocketOptions::restore_late(int fd, const SocketType& type, const images::sk_opts_entry& entry,
                                 const std::string& what) {
  const auto& usual = fresh(type).common;
  if (entry.so_snd_tmo_sec() != 0 || entry.so_snd_tmo_usec() != 0) {
    set_timeout(fd, SO_SNDTIMEO, entry.so_snd_tmo_sec(), entry.so_snd_tmo_usec(), what);
  }
  if (entry.so_rcv_tmo_sec() != 0 || entry.so_rcv_tmo_usec() != 0) {
    set_timeout(fd, SO_RCVTIMEO, entry.so_rcv_tmo_sec(), entry.so_rcv_tmo_usec(), what);
  }
  if (entry.has_so_rcvlowat() && entry.so_rcvlowat() != usual.so_rcvlowat()) {
    set(fd, SOL_SOCKET, SO_RCVLOWAT, entry.so_rcvlowat(), what);
  }
  if (entry.so_passcred()) {
    set(fd, SOL_SOCKET, SO_PASSCRED, 1, what);
  }
  if (entry.so_passsec()) {
    set(fd, SOL_SOCKET, SO_PASSSEC, 1, what);
  }
  if (entry.has_so_linger()) {
    set(fd, SOL_SOCKET, SO_LINGER, linger{1, static_cast<int>(entry.so_linger())}, what);
  }
  restore_filter(fd, entry, what);
  restore_others(fd, type, entry, true, what);
}

void SocketOptions::restore_sizes(int fd, const SocketType& type, const images::sk_opts_entry& entry,
                                  const std::string& what) {
  const auto& usual = fresh(type).common;
  // Setting a size locks it, and so does not setting what a queue made grow: then the lock says so.
  if (entry.so_sndbuf() != usual.so_sndbuf()) {
    set_size(fd, SO_SNDBUFFORCE, SO_SNDBUF, entry.so_sndbuf(), "send", what);
  }
  if (entry.so_rcvbuf() != usual.so_rcvbuf()) {
    set_size(fd, SO_RCVBUFFORCE, SO_RCVBUF, entry.so_rcvbuf(), "receive", what);
  }
  if (entry.has_so_buf_lock() &&
      (entry.so_buf_lock() != 0 || entry.so_sndbuf() != usual.so_sndbuf() || entry.so_rcvbuf() != usual.so_rcvbuf())) {
    const auto lock = static_cast<int>(entry.so_buf_lock());
    if (::setsockopt(fd, SOL_SOCKET, k::so_buf_lock, &lock, sizeof lock) < 0 && errno != ENOPROTOOPT) {
      check(-1, "lock the buffers of", what);
    }
  }
}

}  // namespace criu::sockets
