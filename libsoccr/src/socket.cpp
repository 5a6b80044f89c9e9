// SPDX-License-Identifier: LGPL-2.1-only
#include "socket.hpp"

#include <arpa/inet.h>
#include <linux/xfrm.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

namespace soccr {

int require_tcp(int fd) {
  // By protocol and not by type and family alone: MPTCP and SCTP have streams, too.
  int protocol = 0;
  socklen_t size = sizeof protocol;
  if (::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0) {
    return -errno;
  }
  int domain = 0;
  size = sizeof domain;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
    return -errno;
  }
  const bool tcp = protocol == IPPROTO_TCP && (domain == AF_INET || domain == AF_INET6);
  return tcp ? 0 : -EPROTONOSUPPORT;
}

unsigned state_of(int fd) { return get<tcp_info>(fd, IPPROTO_TCP, TCP_INFO, "TCP_INFO").tcpi_state; }

bool in_repair(int fd) { return ask<int>(fd, IPPROTO_TCP, TCP_REPAIR).value_or(0) == 1; }

void enter_repair(int fd) {
  set(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON, "TCP_REPAIR",
      "it takes CAP_NET_ADMIN in the user namespace of the socket's network namespace");
}

void leave_repair(int fd, bool probe) {
  set(fd, IPPROTO_TCP, TCP_REPAIR, probe ? TCP_REPAIR_OFF : TCP_REPAIR_OFF_NO_WP, "TCP_REPAIR");
}

std::uint32_t queue_seq(int fd, int queue) {
  const Selected selected(fd, queue);
  return get<std::uint32_t>(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, "TCP_QUEUE_SEQ");
}

soccr_address local_address(int fd);

namespace {

soccr_address from_sockaddr(const sockaddr_storage& from) {
  soccr_address address{};
  address.family = from.ss_family;
  if (from.ss_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &from, sizeof in);
    address.port = ntohs(in.sin_port);
    std::memcpy(address.bytes, &in.sin_addr, sizeof in.sin_addr);
  } else {
    sockaddr_in6 in{};
    std::memcpy(&in, &from, sizeof in);
    address.port = ntohs(in.sin6_port);
    address.scope_id = in.sin6_scope_id;
    std::memcpy(address.bytes, &in.sin6_addr, sizeof in.sin6_addr);
  }
  return address;
}

struct Level {
  int level, option;
};

// An IPv6 socket wants its own option, also for the IPv4 that it speaks with mapped addresses.
Level policy_option(int fd) {
  const auto domain = get<int>(fd, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN");
  return domain == AF_INET ? Level{IPPROTO_IP, IP_XFRM_POLICY} : Level{IPPROTO_IPV6, IPV6_XFRM_POLICY};
}

bool speaks_v4(int fd) {
  const auto address = local_address(fd);
  in6_addr v6;
  std::memcpy(&v6, address.bytes, sizeof v6);
  return address.family == AF_INET || IN6_IS_ADDR_V4MAPPED(&v6);
}

}  // namespace

void mute(int fd) {
  xfrm_userpolicy_info policy{};
  policy.sel.family = speaks_v4(fd) ? AF_INET : AF_INET6;
  policy.lft.soft_byte_limit = policy.lft.hard_byte_limit = XFRM_INF;
  policy.lft.soft_packet_limit = policy.lft.hard_packet_limit = XFRM_INF;
  policy.dir = XFRM_POLICY_OUT;
  policy.action = XFRM_POLICY_BLOCK;
  const auto [level, option] = policy_option(fd);
  try_set(fd, level, option, policy);
}

void unmute(int fd) {
  const auto [level, option] = policy_option(fd);
  ::setsockopt(fd, level, option, nullptr, 0);
}

soccr_address local_address(int fd) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  base::check(::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &size), "getsockname", "TCP socket");
  return from_sockaddr(storage);
}

std::optional<soccr_address> peer_address(int fd) {
  // getpeername knows none in SYN_SENT and CLOSED; the kernel does. It wants no more room than it fills.
  sockaddr_storage storage{};
  socklen_t size =
      get<int>(fd, SOL_SOCKET, SO_DOMAIN, "SO_DOMAIN") == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERNAME, &storage, &size) != 0) {
    return std::nullopt;
  }
  return from_sockaddr(storage);
}

socklen_t to_sockaddr(const soccr_address& address, sockaddr_storage& to) {
  if (address.family == AF_INET) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(address.port);
    std::memcpy(&in.sin_addr, address.bytes, sizeof in.sin_addr);
    std::memcpy(&to, &in, sizeof in);
    return sizeof in;
  }
  sockaddr_in6 in{};
  in.sin6_family = AF_INET6;
  in.sin6_port = htons(address.port);
  in.sin6_scope_id = address.scope_id;
  std::memcpy(&in.sin6_addr, address.bytes, sizeof in.sin6_addr);
  std::memcpy(&to, &in, sizeof in);
  return sizeof in;
}

std::string text(const soccr_address& address) {
  char name[INET6_ADDRSTRLEN] = "?";
  ::inet_ntop(address.family, address.bytes, name, sizeof name);
  const bool v6 = address.family == AF_INET6;
  return (v6 ? "[" : "") + std::string(name) + (v6 ? "]:" : ":") + std::to_string(address.port);
}

Buffers::Buffers(int fd)
    : fd_(fd),
      sndbuf_(get<int>(fd, SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF")),
      rcvbuf_(get<int>(fd, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF")),
      lock_(ask<int>(fd, SOL_SOCKET, SO_BUF_LOCK).value_or(0)) {}

Buffers::~Buffers() {
  if (!touched_) {
    return;
  }
  // Setting a size also stops the kernel's tuning of it, which the lock bits bring back.
  set_size(SO_SNDBUF, SO_SNDBUFFORCE, sndbuf_);
  set_size(SO_RCVBUF, SO_RCVBUFFORCE, rcvbuf_);
  try_set(fd_, SOL_SOCKET, SO_BUF_LOCK, lock_);
}

std::uint32_t Buffers::send_size() const { return get<std::uint32_t>(fd_, SOL_SOCKET, SO_SNDBUF, "SO_SNDBUF"); }

void Buffers::wish(std::uint32_t sndbuf, std::uint32_t rcvbuf, std::uint32_t lock) {
  if (sndbuf != 0) {
    sndbuf_ = static_cast<int>(sndbuf);
  }
  if (rcvbuf != 0) {
    rcvbuf_ = static_cast<int>(rcvbuf);
  }
  if (sndbuf != 0 || rcvbuf != 0) {
    lock_ = static_cast<int>(lock);
    touched_ = true;
  }
}

// The kernel doubles what it is told.
void Buffers::set_size(int name, int forced, int size) const {
  try_set(fd_, SOL_SOCKET, forced, size / 2) || try_set(fd_, SOL_SOCKET, name, size / 2);
}

bool Buffers::grow(int name, int forced, std::uint64_t size) {
  if (get<std::uint32_t>(fd_, SOL_SOCKET, name, "buffer size") >= size) {
    return true;
  }
  touched_ = true;
  set_size(name, forced, static_cast<int>(std::min<std::uint64_t>(size, INT32_MAX)));
  return get<std::uint32_t>(fd_, SOL_SOCKET, name, "buffer size") + 2 >= size;
}

}  // namespace soccr
