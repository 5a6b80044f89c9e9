// SPDX-License-Identifier: LGPL-2.1-only
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/inet_diag.h>
#include <linux/net_namespace.h>
#include <linux/netlink_diag.h>
#include <linux/packet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <linux/unix_diag.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "kernel/probes.hpp"
#include "log.hpp"

namespace criu::kernel::probe {

namespace {

constexpr unsigned long sock_netns = 0x894c;      // SIOCGSKNS, Linux 4.9
constexpr unsigned long unix_sock_file = 0x89e0;  // SIOCUNIXFILE, Linux 4.11
constexpr int repair_window = 29;                 // TCP_REPAIR_WINDOW, Linux 4.8

base::Fd open_socket(int family, int type, int protocol = 0) {
  return base::Fd(::socket(family, type | SOCK_CLOEXEC, protocol));
}

template <typename Value>
bool set(const base::Fd& fd, int level, int option, Value value) {
  return ::setsockopt(fd.get(), level, option, &value, sizeof value) == 0;
}

template <typename Value>
bool get(const base::Fd& fd, int level, int option, Value& value) {
  socklen_t length = sizeof value;
  return ::getsockopt(fd.get(), level, option, &value, &length) == 0;
}

// ---- netlink: one request, and what comes back --------------------------------------------------------------------

class Request {
 public:
  template <typename Header>
  Request(int type, int flags, const Header& header) : bytes_(NLMSG_HDRLEN) {
    append(&header, sizeof header);
    auto* message = at<nlmsghdr>(0);
    message->nlmsg_type = static_cast<std::uint16_t>(type);
    message->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  }

  template <typename Value>
  void attribute(int type, const Value& value) {
    const auto place = open_nest(type);
    append(&value, sizeof value);
    close_nest(place);
  }
  void attribute(int type, const char* text) {
    const auto place = open_nest(type);
    append(text, std::strlen(text) + 1);
    close_nest(place);
  }
  template <typename Header>
  void raw(const Header& header) {
    append(&header, sizeof header);
  }
  std::size_t open_nest(int type) {
    const auto place = bytes_.size();
    const rtattr header{0, static_cast<unsigned short>(type)};
    append(&header, sizeof header);
    return place;
  }
  void close_nest(std::size_t place) { at<rtattr>(place)->rta_len = static_cast<unsigned short>(used_ - place); }

  // The answer's error: 0 or a negative errno. Each message goes to `seen`.
  template <typename Seen>
  int ask(int protocol, Seen seen) {
    at<nlmsghdr>(0)->nlmsg_len = static_cast<std::uint32_t>(used_);
    const auto fd = open_socket(AF_NETLINK, SOCK_RAW, protocol);
    if (!fd || ::send(fd.get(), bytes_.data(), used_, 0) < 0) {
      return -errno;
    }
    alignas(nlmsghdr) char answer[32768];
    for (;;) {
      const auto got = ::recv(fd.get(), answer, sizeof answer, 0);
      if (got < 0) {
        return -errno;
      }
      auto left = static_cast<unsigned>(got);
      for (auto* message = reinterpret_cast<nlmsghdr*>(answer); NLMSG_OK(message, left);
           message = NLMSG_NEXT(message, left)) {
        if (message->nlmsg_type == NLMSG_ERROR || message->nlmsg_type == NLMSG_DONE) {
          // Both carry the number first. Families without a module end the dump with an error in DONE.
          return message->nlmsg_len >= NLMSG_LENGTH(sizeof(int)) ? *static_cast<int*>(NLMSG_DATA(message)) : 0;
        }
        if (seen(*message)) {
          return 0;
        }
      }
    }
  }

 private:
  template <typename Type>
  Type* at(std::size_t place) {
    return reinterpret_cast<Type*>(bytes_.data() + place);
  }
  void append(const void* from, std::size_t size) {
    used_ = bytes_.size();
    bytes_.resize(used_ + NLMSG_ALIGN(size));
    std::memcpy(bytes_.data() + used_, from, size);
    used_ += size;
  }

  std::vector<char> bytes_;
  std::size_t used_ = NLMSG_HDRLEN;
};

template <typename Query>
int diag(Query query) {
  Request request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, query);
  return request.ask(NETLINK_SOCK_DIAG, [](const nlmsghdr&) { return false; });
}

int inet_diag(int family, int protocol) {
  inet_diag_req_v2 query{};
  query.sdiag_family = static_cast<std::uint8_t>(family);
  query.sdiag_protocol = static_cast<std::uint8_t>(protocol);
  query.idiag_states = ~0U;
  return diag(query);
}

bool has_ipv6() { return ::access("/proc/net/if_inet6", F_OK) == 0; }

bool collects(const char* what, int error) {
  if (error == 0) {
    return true;
  }
  LOG_WARN("sock_diag of {}: {}", what, std::strerror(-error));
  return false;
}

// Two ends of an established connection over loopback.
std::pair<base::Fd, base::Fd> connection() {
  auto listener = open_socket(AF_INET, SOCK_STREAM);
  auto client = open_socket(AF_INET, SOCK_STREAM);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener.get(), generic, length) != 0 || ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), generic, &length) != 0 || ::connect(client.get(), generic, length) != 0) {
    lacks("a loopback connection");
    return {};
  }
  base::Fd server(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  return {std::move(client), std::move(server)};
}

// Without the right to repair at all, nothing can be said about its details.
bool may_repair() { return ::geteuid() == 0 || set(open_socket(AF_INET, SOCK_STREAM), SOL_TCP, TCP_REPAIR, 1); }

base::Fd make_tun() {
  base::Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request{};
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (fd && ::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    lacks("TUNSETIFF");
    fd.reset();
  }
  return fd;
}

bool own_netns() { return ::unshare(CLONE_NEWNET) == 0 || lacks("a network namespace"); }

// Whether `iptables -V` speaks of the legacy tables: it names the other kind, and very old ones name none.
bool is_legacy(const char* program) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return false;
  }
  const base::Fd reader(ends[0]);
  base::Fd writer(ends[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, writer.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  char option[] = "-V";
  std::string name = program;
  char* const arguments[] = {name.data(), option, nullptr};
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, program, &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    errno = error;
    return lacks(program);
  }
  writer.reset();
  char text[256]{};
  const auto got = ::read(reader.get(), text, sizeof text - 1);
  int status = 0;
  ::waitpid(pid, &status, 0);
  return status == 0 && got > 0 && std::strstr(text, "nf_tables") == nullptr;
}

}  // namespace

bool sock_diag() {
  unix_diag_req unix_query{};
  unix_query.sdiag_family = AF_UNIX;
  unix_query.udiag_states = ~0U;
  packet_diag_req packet_query{};
  packet_query.sdiag_family = AF_PACKET;
  netlink_diag_req netlink_query{};
  netlink_query.sdiag_family = AF_NETLINK;
  netlink_query.sdiag_protocol = NDIAG_PROTO_ALL;
  const bool v6 = has_ipv6();
  return collects("unix", diag(unix_query)) && collects("tcp", inet_diag(AF_INET, IPPROTO_TCP)) &&
         collects("udp", inet_diag(AF_INET, IPPROTO_UDP)) &&
         (!v6 || collects("tcp of IPv6", inet_diag(AF_INET6, IPPROTO_TCP))) &&
         (!v6 || collects("udp of IPv6", inet_diag(AF_INET6, IPPROTO_UDP))) && collects("packet", diag(packet_query)) &&
         collects("netlink", diag(netlink_query));
}

bool peek_off() {
  int offset = 0;
  return get(open_socket(AF_UNIX, SOCK_DGRAM), SOL_SOCKET, SO_PEEK_OFF, offset) && offset == -1;
}

bool tcp_basic() {
  if (!may_repair()) {
    return true;
  }
  const auto fd = open_socket(AF_INET, SOCK_STREAM);
  int stamp = 0;
  return (set(fd, SOL_TCP, TCP_REPAIR, 1) || lacks("TCP_REPAIR")) &&
         (get(fd, SOL_TCP, TCP_TIMESTAMP, stamp) || lacks("TCP_TIMESTAMP"));
}

bool socket_filter() {
  const auto fd = open_socket(AF_INET, SOCK_STREAM);
  socklen_t none = 0;
  char device[IFNAMSIZ];
  return (::getsockopt(fd.get(), SOL_SOCKET, SO_GET_FILTER, nullptr, &none) == 0 || lacks("SO_GET_FILTER")) &&
         (get(fd, SOL_SOCKET, SO_BINDTODEVICE, device) || lacks("SO_BINDTODEVICE"));
}

bool tcp_window() {
  if (!may_repair()) {
    return true;
  }
  const auto [client, server] = connection();
  std::uint32_t window[5]{};
  return (set(client, SOL_TCP, TCP_REPAIR, 1) && get(client, SOL_TCP, repair_window, window)) ||
         lacks("TCP_REPAIR_WINDOW");
}

bool tcp_half_closed() {
  const auto [client, server] = connection();
  return (::shutdown(client.get(), SHUT_WR) == 0 && set(client, SOL_TCP, TCP_REPAIR, 1)) ||
         lacks("TCP_REPAIR of a half-closed connection");
}

bool sk_ns() {
  const auto socket = open_socket(AF_INET, SOCK_STREAM);
  const base::Fd ns(::ioctl(socket.get(), sock_netns));
  return ns || lacks("SIOCGSKNS");
}

bool sk_unix_file() {
  const auto socket = open_socket(AF_UNIX, SOCK_DGRAM);
  // A socket without a name has no file: the right answer of a kernel that understands the question.
  const base::Fd file(::ioctl(socket.get(), unix_sock_file));
  return file || errno == ENOENT || lacks("SIOCUNIXFILE");
}

bool net_diag_raw() {
  return collects("raw", inet_diag(AF_INET, IPPROTO_RAW)) &&
         (!has_ipv6() || collects("raw of IPv6", inet_diag(AF_INET6, IPPROTO_RAW)));
}

bool nsid() {
  const base::Fd ns(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  rtgenmsg header{AF_UNSPEC};
  Request request(RTM_GETNSID, 0, header);
  request.attribute(NETNSA_FD, ns.get());
  const int error =
      request.ask(NETLINK_ROUTE, [](const nlmsghdr& message) { return message.nlmsg_type == RTM_NEWNSID; });
  errno = -error;
  return error == 0 || lacks("RTM_GETNSID");
}

bool link_nsid() {
  return in_child([] {
    if (!own_netns()) {
      return false;
    }
    const base::Fd first(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!own_netns()) {
      return false;
    }
    // A pair of devices with its other end in the first namespace.
    ifinfomsg header{};
    Request create(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, header);
    create.attribute(IFLA_IFNAME, "probe");
    const auto info = create.open_nest(IFLA_LINKINFO);
    create.attribute(IFLA_INFO_KIND, "veth");
    const auto data = create.open_nest(IFLA_INFO_DATA);
    const auto peer = create.open_nest(VETH_INFO_PEER);
    create.raw(header);
    create.attribute(IFLA_NET_NS_FD, first.get());
    create.close_nest(peer);
    create.close_nest(data);
    create.close_nest(info);
    errno = -create.ask(NETLINK_ROUTE, [](const nlmsghdr&) { return false; });
    if (errno != 0) {
      return lacks("a pair of veth devices");
    }
    bool told = false;
    Request list(RTM_GETLINK, NLM_F_DUMP, header);
    list.ask(NETLINK_ROUTE, [&](const nlmsghdr& message) {
      auto left = static_cast<int>(IFLA_PAYLOAD(&message));
      const auto* link = static_cast<const ifinfomsg*>(NLMSG_DATA(&message));
      for (const auto* attribute = IFLA_RTA(link); RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
        told |= attribute->rta_type == IFLA_LINK_NETNSID;
      }
      return false;
    });
    return told;
  });
}

bool external_net_ns() { return true; }

bool newifindex() {
  // An index out of range is refused by who knows the attribute, and not looked at by who doesn't.
  ifinfomsg header{};
  header.ifi_index = 1;
  Request request(RTM_SETLINK, NLM_F_ACK, header);
  request.attribute(IFLA_NEW_IFINDEX, -1);
  const int error = request.ask(NETLINK_ROUTE, [](const nlmsghdr&) { return false; });
  if (error == -ERANGE) {
    return true;
  }
  errno = -error;
  return lacks("IFLA_NEW_IFINDEX");
}

bool nftables() {
  LOG_WARN("built without libnftables");
  return false;
}

bool network_lock_nftables() { return nftables(); }

bool has_ipt_legacy() { return is_legacy("iptables") && (!has_ipv6() || is_legacy("ip6tables")); }

bool sockopt_buf_lock() {
  std::uint32_t lock = 0;
  return get(open_socket(AF_INET, SOCK_STREAM), SOL_SOCKET, SO_BUF_LOCK, lock) || lacks("SO_BUF_LOCK");
}

bool ipv6_freebind() {
  return set(open_socket(AF_INET6, SOCK_STREAM), SOL_IPV6, IPV6_FREEBIND, 1) || lacks("IPV6_FREEBIND");
}

bool tun() {
  if (!exists("/dev/net/tun")) {
    return false;
  }
  return in_child([] {
    if (!own_netns()) {
      return false;
    }
    const auto fd = make_tun();
    ifreq request{};
    return fd && (::ioctl(fd.get(), TUNGETIFF, &request) == 0 || lacks("TUNGETIFF"));
  });
}

// A kernel without the driver has no such devices to save.
bool tun_or_no_driver() { return ::access("/dev/net/tun", F_OK) != 0 || tun(); }

bool tun_ns() {
  return in_child([] {
    if (!own_netns()) {
      return false;
    }
    const auto fd = make_tun();
    const base::Fd ns(fd ? ::ioctl(fd.get(), sock_netns) : -1);
    return ns || lacks("SIOCGSKNS of a tun device");
  });
}

}  // namespace criu::kernel::probe
