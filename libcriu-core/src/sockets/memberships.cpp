// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/memberships.hpp"

#include <fmt/format.h>
#include <net/if.h>
#include <netinet/in.h>

#include <cstring>
#include <fstream>
#include <sstream>

#include "sockets/call.hpp"

namespace criu::sockets {

using base::check;
using base::Error;

namespace {

int level_of(const images::inet_sk_entry& entry) { return entry.family() == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP; }

sockaddr_storage address_of(const std::string& bytes) {
  sockaddr_storage address{};
  if (bytes.size() == sizeof(in_addr)) {
    auto& in = reinterpret_cast<sockaddr_in&>(address);
    in.sin_family = AF_INET;
    std::memcpy(&in.sin_addr, bytes.data(), bytes.size());
  } else {
    auto& in = reinterpret_cast<sockaddr_in6&>(address);
    in.sin6_family = AF_INET6;
    std::memcpy(&in.sin6_addr, bytes.data(), std::min(bytes.size(), sizeof in.sin6_addr));
  }
  return address;
}

std::string bytes_of(const sockaddr_storage& address) {
  if (address.ss_family == AF_INET) {
    return {reinterpret_cast<const char*>(&reinterpret_cast<const sockaddr_in&>(address).sin_addr), sizeof(in_addr)};
  }
  return {reinterpret_cast<const char*>(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr), sizeof(in6_addr)};
}

}  // namespace

void Groups::load() {
  if (loaded_) {
    return;
  }
  loaded_ = true;
  // Lines of devices, and below each those of its groups: hexadecimal, as the machine's own number.
  std::ifstream v4("/proc/net/igmp");
  std::string line, device;
  std::getline(v4, line);
  while (std::getline(v4, line)) {
    std::istringstream words(line);
    std::string first;
    if (!line.empty() && line[0] != '\t') {
      words >> first >> device;
    } else if (words >> first) {
      const auto number = static_cast<std::uint32_t>(std::stoul(first, nullptr, 16));
      groups_.push_back({device, std::string(reinterpret_cast<const char*>(&number), sizeof number)});
    }
  }
  std::ifstream v6("/proc/net/igmp6");
  while (std::getline(v6, line)) {
    std::istringstream words(line);
    std::string index, group;
    if (words >> index >> device >> group && group.size() == 32) {
      std::string bytes;
      for (std::size_t i = 0; i < group.size(); i += 2) {
        bytes += static_cast<char>(std::stoul(group.substr(i, 2), nullptr, 16));
      }
      groups_.push_back({device, bytes});
    }
  }
}

void Groups::save(int fd, images::inet_sk_entry& entry, const std::string& what) {
  load();
  const auto wanted = entry.family() == AF_INET6 ? sizeof(in6_addr) : sizeof(in_addr);
  for (const auto& group : groups_) {
    if (group.address.size() != wanted) {
      continue;
    }
    constexpr std::size_t most_sources = 64;
    alignas(group_filter) char room[GROUP_FILTER_SIZE(most_sources)]{};
    auto& filter = *reinterpret_cast<group_filter*>(room);
    filter.gf_interface = ::if_nametoindex(group.device.c_str());
    filter.gf_group = address_of(group.address);
    filter.gf_numsrc = most_sources;
    socklen_t size = sizeof room;
    if (::getsockopt(fd, level_of(entry), MCAST_MSFILTER, room, &size) < 0) {
      continue;  // not in it
    }
    if (filter.gf_numsrc > most_sources) {
      throw Error(
          "cannot dump",
          fmt::format("{} filters a multicast group by {} sources, more than {}", what, filter.gf_numsrc, most_sources),
          0);
    }
    auto& membership = *entry.add_memberships();
    membership.set_ifname(group.device);
    membership.set_group(group.address);
    membership.set_exclude(filter.gf_fmode == MCAST_EXCLUDE);
    for (std::uint32_t i = 0; i < filter.gf_numsrc; ++i) {
      membership.add_sources(bytes_of(filter.gf_slist[i]));
    }
  }
}

void restore_memberships(int fd, const images::inet_sk_entry& entry, const std::string& what) {
  for (const auto& membership : entry.memberships()) {
    const auto device = ::if_nametoindex(membership.ifname().c_str());
    if (device == 0) {
      throw Error("join a multicast group for", what, ENODEV, membership.ifname() + " must be there first");
    }
    if (membership.exclude()) {
      set(fd, level_of(entry), MCAST_JOIN_GROUP, group_req{device, address_of(membership.group())}, what);
    }
    for (const auto& source : membership.sources()) {
      set(fd, level_of(entry), membership.exclude() ? MCAST_BLOCK_SOURCE : MCAST_JOIN_SOURCE_GROUP,
          group_source_req{device, address_of(membership.group()), address_of(source)}, what);
    }
  }
}

}  // namespace criu::sockets
