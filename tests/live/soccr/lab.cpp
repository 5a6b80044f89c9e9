// SPDX-License-Identifier: GPL-2.0-only
#include "lab.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>

#include "base/error.hpp"

namespace lab {

Namespace::Namespace() {
  // A thread makes it and leaves it to us.
  std::exception_ptr failed;
  std::thread([&] {
    try {
      base::check(::unshare(CLONE_NEWNET), "unshare");
      fd_ = base::Fd(base::check(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), "open", "ns/net"));
    } catch (...) {
      failed = std::current_exception();
    }
  }).join();
  if (failed) {
    std::rethrow_exception(failed);
  }
  shell("ip link set lo up");
}

void Namespace::run(const std::function<void()>& call) const {
  std::exception_ptr failed;
  std::thread([&] {
    try {
      base::check(::setns(fd_.get(), CLONE_NEWNET), "setns");
      call();
    } catch (...) {
      failed = std::current_exception();
    }
  }).join();
  if (failed) {
    std::rethrow_exception(failed);
  }
}

void Namespace::shell(const std::string& command) const {
  run([&] {
    if (std::system(command.c_str()) != 0) {
      throw std::runtime_error("failed: " + command);
    }
  });
}

std::string Namespace::path() const {
  return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(fd_.get());
}

std::string name(Family family) {
  switch (family) {
    case Family::v4:
      return "IPv4";
    case Family::v6:
      return "IPv6";
    case Family::mapped:
      return "IPv4-mapped";
    default:
      return "link-local IPv6";
  }
}

namespace {

std::string link_local_of(const Namespace& where) {
  char found[64] = {};
  where.run([&] {
    const std::unique_ptr<FILE, int (*)(FILE*)> pipe(
        ::popen("ip -6 -o addr show dev wire scope link | sed 's|.*inet6 \\([^/]*\\)/.*|\\1|'", "r"), ::pclose);
    if (std::fscanf(pipe.get(), "%63s", found) != 1) {
      throw std::runtime_error("no link-local address");
    }
  });
  return found;
}

Address make(Family family, const char* v4, const char* v6, const std::string& link_local, unsigned scope,
             in_port_t port) {
  Address address;
  if (family == Family::v4) {
    auto& in = reinterpret_cast<sockaddr_in&>(address.storage);
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    ::inet_pton(AF_INET, v4, &in.sin_addr);
    address.size = sizeof in;
    return address;
  }
  auto& in = reinterpret_cast<sockaddr_in6&>(address.storage);
  in.sin6_family = AF_INET6;
  in.sin6_port = htons(port);
  const std::string text = family == Family::v6       ? v6
                           : family == Family::mapped ? std::string("::ffff:") + v4
                                                      : link_local;
  ::inet_pton(AF_INET6, text.c_str(), &in.sin6_addr);
  in.sin6_scope_id = family == Family::link_local ? scope : 0;
  address.size = sizeof in;
  return address;
}

unsigned wire_index(const Namespace& where) {
  unsigned index = 0;
  where.run([&] { index = ::if_nametoindex("wire"); });
  return index;
}

}  // namespace

Wire::Wire() {
  host.shell("ip link add wire type veth peer name wire netns " + peer.path());
  const std::string up = " && ip link set wire up";
  host.shell("ip addr add 10.9.0.1/24 dev wire && ip addr add fd09::1/64 dev wire nodad" + up);
  peer.shell("ip addr add 10.9.0.2/24 dev wire && ip addr add fd09::2/64 dev wire nodad" + up);
  for (const auto* side : {&host, &peer}) {
    // Link-local addresses that are usable at once.
    side->shell("ip -6 addr add fe80::" + std::string(side == &host ? "1" : "2") + "/64 dev wire nodad");
    side->shell(
        "for a in $(ip -6 -o addr show dev wire tentative | sed 's|.*inet6 \\([^ ]*\\) .*|\\1|'); do "
        "ip -6 addr del $a dev wire; done");
  }
  host_link_local = link_local_of(host);
  peer_link_local = link_local_of(peer);
}

Address Wire::host_address(Family family, in_port_t port) const {
  return make(family, "10.9.0.1", "fd09::1", host_link_local, wire_index(host), port);
}

Address Wire::peer_address(Family family, in_port_t port) const {
  return make(family, "10.9.0.2", "fd09::2", peer_link_local, wire_index(peer), port);
}

Silence::Silence(const Namespace& where) : where_(where) {
  where_.shell(
      "nft 'table inet silence { chain input { type filter hook input priority 0; "
      "meta mark 0xc114 accept; iifname wire meta l4proto tcp drop; }; }'");
}

void Silence::lift() {
  if (there_) {
    there_ = false;
    where_.shell("nft delete table inet silence");
  }
}

Sniffer::Sniffer(const Namespace& where) {
  where.run([&] {
    fd_ = base::Fd(
        base::check(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL)), "packet socket"));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex("wire"));
    base::check(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "bind packet socket");
  });
  drain();
  packets_ = resets_ = 0;
}

void Sniffer::drain() {
  std::byte bytes[128];
  for (;;) {
    sockaddr_ll from{};
    socklen_t size = sizeof from;
    const auto got = ::recvfrom(fd_.get(), bytes, sizeof bytes, 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (got < 0) {
      return;
    }
    const bool v4 = ntohs(from.sll_protocol) == ETH_P_IP;
    if (from.sll_pkttype != PACKET_HOST || got < 40) {
      continue;
    }
    iphdr ip4;
    ip6_hdr ip6;
    std::memcpy(&ip4, bytes, sizeof ip4);
    std::memcpy(&ip6, bytes, sizeof ip6);
    const std::size_t header = v4 ? ip4.ihl * 4U : sizeof ip6;
    if ((v4 ? ip4.protocol : ip6.ip6_nxt) == IPPROTO_TCP) {
      tcphdr tcp;
      std::memcpy(&tcp, bytes + header, sizeof tcp);
      ++packets_;
      resets_ += tcp.rst;
    }
  }
}

int Sniffer::packets() {
  drain();
  return std::exchange(packets_, 0);
}

bool Sniffer::silent_for(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  for (;;) {
    if (packets() != 0) {
      return false;
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    pollfd poll{fd_.get(), POLLIN, 0};
    if (left <= 0 || ::poll(&poll, 1, static_cast<int>(left)) == 0) {
      return packets() == 0;
    }
  }
}

base::Fd open_socket(const Namespace& where, int family) {
  base::Fd fd;
  where.run([&] { fd = base::Fd(base::check(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")); });
  return fd;
}

Pair connect(const Wire& wire, Family family, bool from_host) {
  const auto& listening = from_host ? wire.peer : wire.host;
  const auto& calling = from_host ? wire.host : wire.peer;
  auto at = from_host ? wire.peer_address(family, 0) : wire.host_address(family, 0);
  Pair pair;
  pair.listener = open_socket(listening, at.family());
  const int on = 1;
  base::check(::setsockopt(pair.listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
  base::check(::bind(pair.listener.get(), at.get(), at.size), "bind");
  base::check(::listen(pair.listener.get(), 16), "listen");
  base::check(::getsockname(pair.listener.get(), at.get(), &at.size), "getsockname");
  const in_port_t port = at.family() == AF_INET ? ntohs(reinterpret_cast<sockaddr_in&>(at.storage).sin_port)
                                                : ntohs(reinterpret_cast<sockaddr_in6&>(at.storage).sin6_port);
  auto to = from_host ? wire.peer_address(family, port) : wire.host_address(family, port);
  if (family == Family::link_local) {
    reinterpret_cast<sockaddr_in6&>(to.storage).sin6_scope_id = wire_index(calling);
  }
  auto caller = open_socket(calling, at.family());
  base::check(::connect(caller.get(), to.get(), to.size), "connect");
  base::Fd answer(base::check(::accept4(pair.listener.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
  pair.host = std::move(from_host ? caller : answer);
  pair.peer = std::move(from_host ? answer : caller);
  return pair;
}

unsigned state_of(int fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  base::check(::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), "TCP_INFO");
  return info.tcpi_state;
}

void eventually(const std::function<bool()>& condition, const char* what) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) {
      throw std::runtime_error(std::string("never: ") + what);
    }
    ::usleep(500);
  }
}

void wait_for_state(int fd, unsigned state) {
  eventually([&] { return state_of(fd) == state; }, ("TCP state " + std::to_string(state)).c_str());
}

std::string stream(std::size_t from, std::size_t size, unsigned salt) {
  std::string bytes(size, 0);
  for (std::size_t i = 0; i < size; ++i) {
    const auto place = from + i + salt * 7919;
    bytes[i] = static_cast<char>((place * 2654435761U) >> 13);
  }
  return bytes;
}

void send_all(int fd, const std::string& bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    done += static_cast<std::size_t>(
        base::check(::send(fd, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL), "send"));
  }
}

std::size_t send_until_full(int fd, unsigned salt, std::size_t done) {
  for (;;) {
    const auto bytes = stream(done, 65536, salt);
    const auto sent = ::send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      return done;
    }
    done += static_cast<std::size_t>(sent);
  }
}

std::size_t send_until_window_closes(int fd, unsigned salt) {
  std::size_t done = 0;
  eventually(
      [&] {
        done = send_until_full(fd, salt, done);
        // All that was sent is acknowledged, and something is left that may not be sent.
        int queued = 0, unsent = 0;
        base::check(::ioctl(fd, SIOCOUTQ, &queued), "SIOCOUTQ");
        base::check(::ioctl(fd, SIOCOUTQNSD, &unsent), "SIOCOUTQNSD");
        return queued == unsent && unsent > 0;
      },
      "a closed window");
  return done;
}

std::string receive(int fd, std::size_t size) {
  std::string bytes(size, 0);
  for (std::size_t done = 0; done < size;) {
    pollfd ready{fd, POLLIN, 0};
    if (::poll(&ready, 1, 20000) == 0) {
      throw std::runtime_error("only " + std::to_string(done) + " of " + std::to_string(size) + " bytes came");
    }
    const auto got = base::check(::recv(fd, bytes.data() + done, size - done, MSG_DONTWAIT), "recv");
    if (got == 0) {
      throw std::runtime_error("the end came after " + std::to_string(done) + " of " + std::to_string(size) + " bytes");
    }
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

std::string receive_to_end(int fd) {
  std::string all;
  for (;;) {
    char bytes[65536];
    pollfd ready{fd, POLLIN, 0};
    if (::poll(&ready, 1, 20000) == 0) {
      throw std::runtime_error("no end came after " + std::to_string(all.size()) + " bytes");
    }
    const auto got = base::check(::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT), "recv");
    if (got == 0) {
      return all;
    }
    all.append(bytes, static_cast<std::size_t>(got));
  }
}

}  // namespace lab
