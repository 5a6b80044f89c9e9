// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/inet.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/kernel.hpp"
#include "files/common.hpp"
#include "files/saver.hpp"
#include "log.hpp"
#include "restore_context.hpp"
#include "sockets/datagrams.hpp"
#include "sockets/family.hpp"
#include "sockets/memberships.hpp"
#include "sockets/tcp.hpp"

namespace criu::sockets {

using base::check;
using base::Error;
using files::Description;
using files::Made;
using files::Saver;

namespace {

constexpr int mptcp = 262;         // IPPROTO_MPTCP
constexpr int raw_filter = 1;      // ICMP_FILTER and ICMPV6_FILTER
constexpr int ipv6_hdrincl = 36;   // IPV6_HDRINCL
constexpr int ipv6_freebind = 78;  // IPV6_FREEBIND, Linux 4.15

SocketType type_of(const images::inet_sk_entry& entry) {
  return {static_cast<int>(entry.family()), static_cast<int>(entry.type()), static_cast<int>(entry.proto())};
}

bool is_tcp(const SocketType& type) { return type.type == SOCK_STREAM; }

// A socket address of either family, and its parts as the images have them.
struct Name {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;

  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr_in& v4() { return reinterpret_cast<sockaddr_in&>(storage); }
  sockaddr_in6& v6() { return reinterpret_cast<sockaddr_in6&>(storage); }

  std::uint32_t port() { return ntohs(storage.ss_family == AF_INET ? v4().sin_port : v6().sin6_port); }
  std::uint32_t scope() { return storage.ss_family == AF_INET6 ? v6().sin6_scope_id : 0; }
  std::vector<std::uint32_t> words() {
    if (storage.ss_family != AF_INET6) {
      return {v4().sin_addr.s_addr};
    }
    std::vector<std::uint32_t> words(4);
    std::memcpy(words.data(), &v6().sin6_addr, sizeof(in6_addr));
    return words;
  }
};

template <typename Words>
Name make_name(const images::inet_sk_entry& entry, const Words& words, std::uint32_t port) {
  Name name;
  name.storage.ss_family = static_cast<sa_family_t>(entry.family());
  if (entry.family() == AF_INET) {
    name.size = sizeof(sockaddr_in);
    name.v4().sin_port = htons(static_cast<std::uint16_t>(port));
    name.v4().sin_addr.s_addr = words.Get(0);
    return name;
  }
  name.size = sizeof(sockaddr_in6);
  name.v6().sin6_port = htons(static_cast<std::uint16_t>(port));
  for (int i = 0; i < 4; ++i) {
    name.v6().sin6_addr.s6_addr32[i] = words.Get(i);
  }
  if (entry.has_ifname()) {
    name.v6().sin6_scope_id = ::if_nametoindex(entry.ifname().c_str());
  }
  return name;
}

std::string text_of(const Name& given) {
  auto name = given;
  char text[INET6_ADDRSTRLEN]{};
  if (name.storage.ss_family == AF_INET) {
    return fmt::format("{}:{}", ::inet_ntop(AF_INET, &name.v4().sin_addr, text, sizeof text), name.port());
  }
  return fmt::format("[{}]:{}", ::inet_ntop(AF_INET6, &name.v6().sin6_addr, text, sizeof text), name.port());
}

// ---- dump -----------------------------------------------------------------------------------------------------------

// Where getpeername knows none: of a call that is not answered yet, and of a connection that is over and has unread
// data.
bool find_silent_peer(int fd, const InetInfo* info, const images::inet_sk_entry& entry, Name& peer) {
  if (entry.type() != SOCK_STREAM) {
    return false;
  }
  int unread = 0;
  pollfd poll{fd, 0, 0};
  const bool calls = info != nullptr && info->state == syn_sent;
  // Since Linux 6.8 the diagnostics know it as long as it keeps its port.
  const bool over = info == nullptr || info->state == closed;
  const bool left = over && ::ioctl(fd, FIONREAD, &unread) == 0 && unread > 0 && ::poll(&poll, 1, 0) == 1 &&
                    (poll.revents & POLLERR) == 0;
  peer.size = entry.family() == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  return (calls || left) && ::getsockopt(fd, SOL_SOCKET, SO_PEERNAME, peer.get(), &peer.size) == 0;
}

void save_names(const Description& description, const InetInfo* info, images::inet_sk_entry& entry) {
  Name own, peer;
  check(::getsockname(description.own, own.get(), &own.size), "read the address of", description.what());
  const bool connected = ::getpeername(description.own, peer.get(), &peer.size) == 0 ||
                         find_silent_peer(description.own, info, entry, peer);
  if (!connected) {
    peer.storage.ss_family = own.storage.ss_family;
    // A peer without a port (of raw and ICMP sockets) is told by the diagnostics only.
    if (info != nullptr && info->state == established && entry.type() != SOCK_STREAM) {
      std::memcpy(own.storage.ss_family == AF_INET ? static_cast<void*>(&peer.v4().sin_addr) : &peer.v6().sin6_addr,
                  info->peer.data(), own.storage.ss_family == AF_INET ? sizeof(in_addr) : sizeof(in6_addr));
    }
  }
  entry.set_src_port(own.port());
  entry.set_dst_port(connected ? peer.port() : 0);
  for (const auto word : own.words()) {
    entry.add_src_addr(word);
  }
  for (const auto word : peer.words()) {
    entry.add_dst_addr(word);
  }
  if (const auto scope = own.scope() != 0 ? own.scope() : peer.scope(); scope != 0) {
    char device[IF_NAMESIZE]{};
    if (::if_indextoname(scope, device) == nullptr) {
      throw Error("find the device of", description.what(), errno);
    }
    entry.set_ifname(device);
  }
}

void save_raw(int fd, const SocketType& type, images::ip_opts_raw_entry& raw) {
  const bool v6 = type.family == AF_INET6;
  if (try_get(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? ipv6_hdrincl : IP_HDRINCL).value_or(0) != 0) {
    raw.set_hdrincl(true);
  }
  if (!v6 && try_get(fd, IPPROTO_IP, IP_NODEFRAG).value_or(0) != 0) {
    raw.set_nodefrag(true);
  }
  if (type.protocol == IPPROTO_ICMP && !v6) {
    raw.add_icmpv_filter(try_get<std::uint32_t>(fd, SOL_RAW, raw_filter).value_or(0));
  } else if (type.protocol == IPPROTO_ICMPV6 && v6) {
    for (const auto word : try_get<std::array<std::uint32_t, 8>>(fd, IPPROTO_ICMPV6, raw_filter)
                               .value_or(std::array<std::uint32_t, 8>{})) {
      raw.add_icmpv_filter(word);
    }
  }
}

void save_ip_options(int fd, const SocketType& type, images::inet_sk_entry& entry) {
  auto& ip = *entry.mutable_ip_opts();
  const bool v6 = type.family == AF_INET6;
  const auto number = [&](int option) {
    return static_cast<std::uint32_t>(try_get(fd, IPPROTO_IP, option).value_or(0));
  };
  if (number(IP_FREEBIND) != 0) {
    ip.set_freebind(true);
  }
  if (number(IP_PKTINFO) != 0) {
    ip.set_pktinfo(true);
  }
  if (v6) {
    entry.set_v6only(try_get(fd, IPPROTO_IPV6, IPV6_V6ONLY).value_or(0) != 0);
  } else {
    if (const auto tos = number(IP_TOS); tos != 0) {
      ip.set_tos(tos);
    }
    if (const auto ttl = number(IP_TTL); ttl != 0) {
      ip.set_ttl(ttl);
    }
  }
  if (type.type == SOCK_RAW) {
    save_raw(fd, type, *ip.mutable_raw());
  }
}

void save_tcp_options(int fd, images::tcp_opts_entry& tcp) {
  const auto number = [&](int option) {
    return static_cast<std::uint32_t>(try_get(fd, IPPROTO_TCP, option).value_or(0));
  };
  if (number(TCP_CORK) != 0) {
    tcp.set_cork(true);
  }
  if (number(TCP_NODELAY) != 0) {
    tcp.set_nodelay(true);
  }
  tcp.set_keepcnt(number(TCP_KEEPCNT));
  tcp.set_keepidle(number(TCP_KEEPIDLE));
  tcp.set_keepintvl(number(TCP_KEEPINTVL));
}

void check_tcp(Saver& saver, const Description& description, const images::inet_sk_entry& entry, const InetInfo* info) {
  const auto what = description.what();
  if (entry.state() == listening) {
    if (info != nullptr && info->received > 0 && !saver.dump().options.skip_in_flight) {
      throw Error("cannot dump", fmt::format("{} has {} connections waiting to be accepted", what, info->received), 0,
                  "--skip-in-flight leaves them out");
    }
    return;
  }
  if (entry.dst_port() == 0) {
    return;
  }
  const auto& options = saver.dump().options;
  if (!options.tcp_established && !options.tcp_close) {
    throw Error("cannot dump",
                fmt::format("{} is a TCP connection to {}", what,
                            text_of(make_name(entry, entry.dst_addr(), entry.dst_port()))),
                0, "--tcp-established saves it, --tcp-close restores it closed");
  }
}

// What waits in raw and ICMP sockets is lost, as when the network loses it.
void save_waiting(Saver& saver, const Description& description, const SocketType& type, const InetInfo* info,
                  images::inet_sk_entry& entry) {
  if (type.type == SOCK_DGRAM && try_get(description.own, IPPROTO_UDP, base::kernel::udp_cork).value_or(0) != 0) {
    int unsent = 0;
    if (::ioctl(description.own, TIOCOUTQ, &unsent) == 0 && unsent > 0) {
      throw Error("cannot dump", description.what() + " has a datagram that is being put together (UDP_CORK)", 0);
    }
  }
  if (info == nullptr || info->received == 0 || saver.dump().look_only) {
    return;
  }
  if (type.type == SOCK_DGRAM && (type.protocol == IPPROTO_UDP || type.protocol == IPPROTO_UDPLITE)) {
    save_datagrams(description.own, entry, description.what());
  } else {
    LOG_WARN("{}: packets that wait to be received are not saved", description.what());
  }
}

const InetInfo* find_info(Diagnostics& diagnostics, const SocketType& type, std::uint32_t ino) {
  if (type.type == SOCK_DGRAM && (type.protocol == IPPROTO_ICMP || type.protocol == IPPROTO_ICMPV6)) {
    return diagnostics.find_ping(type.family, ino);
  }
  return diagnostics.find_inet(type.family, type.type == SOCK_RAW ? IPPROTO_RAW : type.protocol, ino);
}

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  const int fd = description.own;
  const auto what = description.what();
  auto& socket = *entry.mutable_isk();
  const SocketType type{get(fd, SOL_SOCKET, SO_DOMAIN, what), get(fd, SOL_SOCKET, SO_TYPE, what),
                        get(fd, SOL_SOCKET, SO_PROTOCOL, what)};
  if (type.protocol == mptcp) {
    throw Error("cannot dump", what + " is an MPTCP socket, whose state the kernel does not give away", 0);
  }
  if (is_tcp(type) && type.protocol != IPPROTO_TCP) {
    throw Error("not supported by this version",
                fmt::format("{} is a stream socket of protocol {}", what, type.protocol), 0);
  }
  auto& survey = saver.sockets();
  const auto* info = find_info(survey.diagnostics, type, inode_of(description));
  begin_entry(saver, description, entry.id(), type, socket);
  socket.set_family(static_cast<std::uint32_t>(type.family));
  socket.set_type(static_cast<std::uint32_t>(type.type));
  socket.set_proto(static_cast<std::uint32_t>(type.protocol));
  save_names(description, info, socket);
  const State unseen = is_tcp(type) || socket.dst_port() == 0 ? closed : established;
  socket.set_state(info != nullptr ? info->state : static_cast<std::uint32_t>(unseen));
  socket.set_backlog(info != nullptr ? info->backlog : 0);
  if (info != nullptr && info->shutdown != 0) {
    socket.set_shutdown(static_cast<images::sk_shutdown>(info->shutdown));
  }
  save_ip_options(fd, type, socket);
  socket.mutable_tcp_opts();
  if (is_tcp(type)) {
    save_tcp_options(fd, *socket.mutable_tcp_opts());
    check_tcp(saver, description, socket, info);
    // The diagnostics leave closed sockets out.
    pollfd poll{fd, POLLRDHUP, 0};
    if (socket.state() == closed && ::poll(&poll, 1, 0) > 0 && (poll.revents & POLLRDHUP) != 0) {
      socket.set_shutdown(images::BOTH);
    }
    if (is_connection(socket) && !saver.dump().options.tcp_close && !saver.dump().look_only) {
      if (survey.connections == nullptr) {
        survey.connections = std::make_unique<Connections>();
      }
      survey.connections->meet(description, socket);
    }
  } else {
    save_waiting(saver, description, type, info, socket);
    survey.groups.save(fd, socket, what);
  }
}

void save_late(Saver& saver, const Description& description, images::file_entry& entry) {
  auto& context = saver.dump();
  if (is_connection(entry.isk()) && !context.options.tcp_close && !context.look_only) {
    saver.sockets().connections->save(context, description, *entry.mutable_isk());
  }
}

// ---- restore --------------------------------------------------------------------------------------------------------

void check_entry(const images::inet_sk_entry& entry, const std::string& what) {
  const bool v6 = entry.family() == AF_INET6;
  const bool good_type = entry.type() == SOCK_STREAM || entry.type() == SOCK_DGRAM || entry.type() == SOCK_RAW;
  if ((entry.family() != AF_INET && !v6) || !good_type || entry.src_port() > 0xffff || entry.dst_port() > 0xffff ||
      entry.src_addr_size() < (v6 ? 4 : 1) || entry.dst_addr_size() < (v6 ? 4 : 1) || entry.proto() > 0xffff ||
      entry.backlog() > 0x7fffffff) {
    throw Error("corrupt checkpoint", what, 0);
  }
}

void restore_ip_options(int fd, const SocketType& type, const images::inet_sk_entry& entry, const std::string& what) {
  const auto& ip = entry.ip_opts();
  const bool v6 = type.family == AF_INET6;
  if (v6 && entry.has_v6only() && (try_get(fd, IPPROTO_IPV6, IPV6_V6ONLY).value_or(0) != 0) != entry.v6only()) {
    set(fd, IPPROTO_IPV6, IPV6_V6ONLY, static_cast<int>(entry.v6only()), what);
  }
  if (ip.freebind()) {
    set(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? ipv6_freebind : IP_FREEBIND, 1, what);
  }
  if (ip.pktinfo()) {
    set(fd, IPPROTO_IP, IP_PKTINFO, 1, what);
  }
  if (ip.tos() != 0) {
    set(fd, IPPROTO_IP, IP_TOS, ip.tos(), what);
  }
  if (ip.ttl() != 0 && !v6 && try_get(fd, IPPROTO_IP, IP_TTL) != static_cast<int>(ip.ttl())) {
    set(fd, IPPROTO_IP, IP_TTL, ip.ttl(), what);
  }
  const auto& raw = ip.raw();
  if (raw.hdrincl()) {
    set(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? ipv6_hdrincl : IP_HDRINCL, 1, what);
  }
  if (raw.nodefrag()) {
    set(fd, IPPROTO_IP, IP_NODEFRAG, 1, what);
  }
  if (raw.icmpv_filter_size() == 1) {
    set(fd, SOL_RAW, raw_filter, raw.icmpv_filter(0), what);
  } else if (raw.icmpv_filter_size() == 8) {
    std::array<std::uint32_t, 8> words{};
    std::copy(raw.icmpv_filter().begin(), raw.icmpv_filter().end(), words.begin());
    set(fd, IPPROTO_ICMPV6, raw_filter, words, what);
  }
}

// What delays or ends a connection waits until its data is in place.
void restore_tcp_options(int fd, const images::inet_sk_entry& entry, const std::string& what) {
  const auto& tcp = entry.tcp_opts();
  const auto number = [&](int option, std::uint32_t value) {
    if (value != 0 && try_get(fd, IPPROTO_TCP, option) != static_cast<int>(value)) {
      set(fd, IPPROTO_TCP, option, value, what);
    }
  };
  number(TCP_NODELAY, tcp.nodelay() ? 1 : 0);
  number(TCP_CORK, tcp.cork() ? 1 : 0);
  number(TCP_KEEPCNT, tcp.has_keepcnt() ? tcp.keepcnt() : entry.opts().tcp_keepcnt());
  number(TCP_KEEPIDLE, tcp.has_keepidle() ? tcp.keepidle() : entry.opts().tcp_keepidle());
  number(TCP_KEEPINTVL, tcp.has_keepintvl() ? tcp.keepintvl() : entry.opts().tcp_keepintvl());
}

// Several sockets of the tree on one port: they came there one after another, each allowed by the others, and come
// back in any order. Alone, a socket minds others as it always did.
bool shares_port(const RestoreContext& context, const images::inet_sk_entry& entry) {
  const auto found = context.objects.inet_ports.find({entry.proto(), entry.src_port()});
  return found != context.objects.inet_ports.end() && found->second > 1;
}

void bind_and_connect(const RestoreContext& context, int fd, const images::inet_sk_entry& entry,
                      const std::string& what) {
  const auto own = make_name(entry, entry.src_addr(), entry.src_port());
  const bool named = entry.src_port() != 0 || std::any_of(entry.src_addr().begin(), entry.src_addr().end(),
                                                          [](std::uint32_t word) { return word != 0; });
  if (entry.opts().reuseaddr() || shares_port(context, entry)) {
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1, what);
  }
  if (entry.opts().so_reuseport()) {
    set(fd, SOL_SOCKET, SO_REUSEPORT, 1, what);
  }
  // What is left of a connection has no use for its port, which may be another's by now.
  const bool over = is_tcp(type_of(entry)) && entry.state() == closed && entry.shutdown() == images::BOTH;
  if (named && ::bind(fd, own.get(), own.size) < 0 && !(over && errno == EADDRINUSE)) {
    const char* hint = errno == EADDRINUSE      ? "another program has taken it"
                       : errno == EADDRNOTAVAIL ? "the address must be on this machine again first"
                                                : "";
    throw Error("bind", what, errno, hint);
  }
  restore_datagrams(fd, entry, shares_port(context, entry), what);
  if (type_of(entry).type != SOCK_STREAM && entry.state() == established) {
    const auto peer = make_name(entry, entry.dst_addr(), entry.dst_port());
    if (::connect(fd, peer.get(), peer.size) < 0) {
      throw Error("connect", what + " to " + text_of(peer), errno,
                  errno == ENETUNREACH || errno == EHOSTUNREACH ? "the route to the peer must be there first" : "");
    }
  }
}

std::string what_is(const images::inet_sk_entry& entry) {
  return fmt::format("socket {} (file {}, port {})", entry.ino(), entry.id(), entry.src_port());
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->isk();
  auto what = what_is(entry);
  if (const auto carried = context.objects.carried.find(entry.id()); carried != context.objects.carried.end()) {
    return files::one(base::Fd(check(::fcntl(carried->second.get(), F_DUPFD_CLOEXEC, 0), "duplicate", what)));
  }
  check_entry(entry, what);
  const auto type = type_of(entry);
  what = fmt::format("socket {} ({})", entry.ino(), text_of(make_name(entry, entry.src_addr(), entry.src_port())));
  auto fd = make_socket(type, what);
  auto& options = context.objects.socket_options;
  restore_ip_options(fd.get(), type, entry, what);
  options.restore_early(fd.get(), type, entry.opts(), what);
  if (is_connection(entry)) {
    restore_connection(context, fd.get(), entry, what);
  } else {
    bind_and_connect(context, fd.get(), entry, what);
    options.restore_sizes(fd.get(), type, entry.opts(), what);
  }
  restore_memberships(fd.get(), entry, what);
  files::set_flags(fd.get(), entry.flags(), what);
  return files::one(std::move(fd));
}

void connect(RestoreContext& context, const TaskImage&, std::span<const Made> group) {
  const auto& entry = group.front().entry->isk();
  const int fd = group.front().fd;
  const auto what = what_is(entry);
  const auto type = type_of(entry);
  if (entry.state() == listening && is_tcp(type)) {
    if (::listen(fd, static_cast<int>(entry.backlog())) < 0) {
      throw Error("listen with", what, errno, errno == EADDRINUSE ? "another program has taken the port" : "");
    }
  }
  if (!is_connection(entry) && shares_port(context, entry) && !entry.opts().reuseaddr()) {
    set(fd, SOL_SOCKET, SO_REUSEADDR, 0, what);
  }
  if (is_tcp(type)) {
    restore_tcp_options(fd, entry, what);
  }
  if ((!is_tcp(type) || entry.state() == closed) && entry.has_shutdown() && entry.shutdown() != images::NONE) {
    if (::shutdown(fd, static_cast<int>(entry.shutdown()) - 1) < 0 && errno != ENOTCONN) {
      check(-1, "shut down", what);
    }
  }
  context.objects.socket_options.restore_late(fd, type, entry.opts(), what);
}

}  // namespace

const files::Kind inet_kind = {
    .type = images::INETSK,
    .name = "internet socket",
    .recognise = is_of<AF_INET, AF_INET6>,
    .save = save,
    .save_late = save_late,
    .owner = [](images::file_entry& entry) { return entry.mutable_isk()->mutable_fown(); },
    .make = make,
    .connect = connect,
};

}  // namespace criu::sockets
