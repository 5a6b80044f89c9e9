// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/net_tables.hpp"

#include <fmt/format.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

namespace criu::namespaces {

using base::Error;
using kernel::Attributes;
using kernel::Netlink;

namespace {

using Bytes = std::vector<std::byte>;

struct Message {
  nlmsghdr header{};
  Bytes body;

  template <typename Header>
  Header& as() {
    return *reinterpret_cast<Header*>(body.data());
  }
  template <typename Header>
  const Header& as() const {
    return *reinterpret_cast<const Header*>(body.data());
  }
  template <typename Header>
  Attributes attributes() const {
    return Attributes(std::span<const std::byte>(body).subspan(NLMSG_ALIGN(sizeof(Header))));
  }
};

// What is done alike for all of a kind.
struct Table {
  const char* name;
  std::uint16_t add, remove, list;
  std::size_t header_size;
  unsigned time_attribute;  // tells what has happened so far and makes no difference between two messages
  std::uint8_t family;
};

constexpr Table addresses{"the network address", RTM_NEWADDR,   RTM_DELADDR, RTM_GETADDR,
                          sizeof(ifaddrmsg),     IFA_CACHEINFO, AF_UNSPEC};
constexpr Table routes4{"the route", RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE, sizeof(rtmsg), RTA_CACHEINFO, AF_INET};
constexpr Table routes6{"the route", RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE, sizeof(rtmsg), RTA_CACHEINFO, AF_INET6};
constexpr Table rules4{"the routing rule", RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE, sizeof(fib_rule_hdr), 0, AF_INET};
constexpr Table rules6{"the routing rule", RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE, sizeof(fib_rule_hdr), 0, AF_INET6};
constexpr Table neighbours{"the neighbour", RTM_NEWNEIGH,  RTM_DELNEIGH, RTM_GETNEIGH,
                           sizeof(ndmsg),   NDA_CACHEINFO, AF_UNSPEC};

std::vector<Message> list(Netlink& netlink, const Table& table) {
  std::vector<Message> all;
  Bytes request(table.header_size);
  request[0] = std::byte{table.family};  // the first byte of each of these headers
  netlink.list(
      table.list, request,
      [&](const nlmsghdr& header, std::span<const std::byte> body) {
        if (body.size() >= table.header_size && header.nlmsg_type == table.add) {
          all.push_back({header, Bytes(body.begin(), body.end())});
        }
      },
      table.name);
  return all;
}

// ---- what belongs to a checkpoint
// ------------------------------------------------------------------------------------

// Those that the kernel has by itself or learned from the network are not the tree's.
bool is_set_neighbour(const Message& message) {
  const auto& neighbour = message.as<ndmsg>();
  return (neighbour.ndm_family == AF_INET || neighbour.ndm_family == AF_INET6) &&
         ((neighbour.ndm_state & NUD_PERMANENT) != 0 || (neighbour.ndm_flags & NTF_PROXY) != 0);
}

bool is_own_route(const Message& message) {
  const auto& route = message.as<rtmsg>();
  return (route.rtm_flags & RTM_F_CLONED) == 0 && route.rtm_type != RTN_UNSPEC &&
         (route.rtm_family == AF_INET || route.rtm_family == AF_INET6) &&
         // What comes with addresses and links in the table of local ones.
         !(route.rtm_table == RT_TABLE_LOCAL && route.rtm_protocol == RTPROT_KERNEL);
}

void write(image::Writer& image, const std::vector<Message>& messages) {
  image.touch();
  for (const auto& message : messages) {
    image.raw(std::as_bytes(std::span(&message.header, 1)));
    image.raw(message.body);
    constexpr std::byte zeros[NLMSG_ALIGNTO]{};
    image.raw(std::span(zeros, NLMSG_ALIGN(message.body.size()) - message.body.size()));
  }
}

std::vector<Message> parse(std::span<const std::byte> bytes, const Table& table, const std::string& name) {
  std::vector<Message> all;
  while (!bytes.empty()) {
    Message message;
    if (bytes.size() >= sizeof message.header) {
      std::memcpy(&message.header, bytes.data(), sizeof message.header);
    }
    const std::size_t size = message.header.nlmsg_len;
    if (size < sizeof message.header + table.header_size || size > bytes.size() ||
        message.header.nlmsg_type != table.add) {
      throw Error("corrupt image", fmt::format("{}: this is no list of messages about {}", name, table.name), 0);
    }
    const auto body = bytes.subspan(sizeof message.header, size - sizeof message.header);
    message.body.assign(body.begin(), body.end());
    all.push_back(std::move(message));
    bytes = bytes.subspan(std::min<std::size_t>(NLMSG_ALIGN(size), bytes.size()));
  }
  return all;
}

std::optional<std::vector<Message>> read(const RestoreContext& context, const image::Type& type, std::uint32_t ns_id,
                                         const Table& table) {
  auto image = context.images.open(type, ns_id);
  if (!image) {
    return std::nullopt;
  }
  const auto bytes = image->raw(image->left());
  return parse(bytes, table, image->name());
}

// ---- making a table what it was
// --------------------------------------------------------------------------------------

// What tells two of a kind apart.
Bytes identity(const Table& table, const Message& message) {
  auto header = message.body;
  header.resize(table.header_size);
  if (table.add == RTM_NEWROUTE) {
    reinterpret_cast<rtmsg*>(header.data())->rtm_flags &= RTNH_F_ONLINK | RTNH_F_PERVASIVE;
  }
  kernel::Request plain;
  plain.append(header.data(), header.size());
  Attributes(std::span<const std::byte>(message.body).subspan(NLMSG_ALIGN(table.header_size)))
      .each([&](unsigned type, std::span<const std::byte> value) {
        if (table.time_attribute == 0 || type != table.time_attribute) {
          plain.add_bytes(type, value);
        }
      });
  return {plain.bytes().begin(), plain.bytes().end()};
}

std::vector<Bytes> identities(const Table& table, const std::vector<Message>& messages) {
  std::vector<Bytes> all;
  all.reserve(messages.size());
  for (const auto& message : messages) {
    all.push_back(identity(table, message));
  }
  std::sort(all.begin(), all.end());
  return all;
}

std::string text_of(const Table& table, const Message& message) {
  std::string text;
  for (const auto byte : message.body) {
    text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  }
  return fmt::format("{} (family {}, message {})", table.name, static_cast<unsigned>(message.body[0]), text);
}

void add(Netlink& netlink, const Table& table, const Message& message, unsigned flags) {
  const int error = netlink.attempt(table.add, NLM_F_CREATE | flags, message.body, table.name);
  if (error != 0 && error != EEXIST) {
    throw Error("restore", text_of(table, message), error);
  }
}

// Removes what should not be there and returns what is missing.
template <typename Keep>
std::vector<Message> reconcile(Netlink& netlink, const Table& table, const std::vector<Message>& wanted, Keep keep) {
  const auto wanted_ones = identities(table, wanted);
  std::vector<Bytes> there;
  for (const auto& message : list(netlink, table)) {
    auto its = identity(table, message);
    if (std::binary_search(wanted_ones.begin(), wanted_ones.end(), its)) {
      there.push_back(std::move(its));
    } else if (!keep(message)) {
      netlink.attempt(table.remove, 0, message.body, table.name);  // it may have gone with another
    }
  }
  std::sort(there.begin(), there.end());
  std::vector<Message> missing;
  std::copy_if(wanted.begin(), wanted.end(), std::back_inserter(missing), [&](const Message& message) {
    return !std::binary_search(there.begin(), there.end(), identity(table, message));
  });
  return missing;
}

unsigned flags_of(const Message& address) {
  return address.attributes<ifaddrmsg>().value<std::uint32_t>(IFA_FLAGS).value_or(address.as<ifaddrmsg>().ifa_flags);
}

// The same message with other flags.
Bytes with_flags(const Message& address, unsigned flags) {
  auto header = address.as<ifaddrmsg>();
  header.ifa_flags = static_cast<std::uint8_t>(flags);
  kernel::Request request(header);
  address.attributes<ifaddrmsg>().each([&](unsigned type, std::span<const std::byte> value) {
    if (type != IFA_FLAGS) {
      request.add_bytes(type, value);
    }
  });
  request.add<std::uint32_t>(IFA_FLAGS, flags);
  return {request.bytes().begin(), request.bytes().end()};
}

void restore_addresses(Netlink& netlink, const std::vector<Message>& wanted) {
  auto missing = reconcile(netlink, addresses, wanted, [](const Message&) { return false; });
  // The kernel tells the newest address of IPv6 first, and of IPv4 the oldest.
  std::reverse(std::find_if(missing.begin(), missing.end(),
                            [](const Message& address) { return address.as<ifaddrmsg>().ifa_family == AF_INET6; }),
               missing.end());
  for (const auto& address : missing) {
    const auto flags = flags_of(address);
    const bool proven = address.as<ifaddrmsg>().ifa_family == AF_INET6 &&
                        (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_NODAD)) == 0;
    if (!proven) {
      add(netlink, addresses, address, 0);
      continue;
    }
    // It was in use, and nobody else's: so sockets can be bound to it at once.
    const auto unproven = with_flags(address, flags | IFA_F_NODAD);
    add(netlink, addresses, {address.header, unproven}, 0);
    netlink.attempt(addresses.add, NLM_F_REPLACE, with_flags(address, flags), addresses.name);
  }
}

// As iproute2 does it: what others lead over comes first.
int turn_of(const Message& route) {
  const auto attributes = route.attributes<rtmsg>();
  return route.as<rtmsg>().rtm_type == RTN_LOCAL || route.as<rtmsg>().rtm_type == RTN_BROADCAST          ? 0
         : !attributes.find(RTA_GATEWAY) && !attributes.find(RTA_MULTIPATH) && !attributes.find(RTA_VIA) ? 1
                                                                                                         : 2;
}

void restore_routes(Netlink& netlink, const Table& table, const std::vector<Message>& wanted) {
  // Tables other than the main one may be missing in the image, and are empty here but for what the kernel keeps in it.
  auto missing = reconcile(netlink, table, wanted, [](const Message& route) {
    return route.as<rtmsg>().rtm_table != RT_TABLE_MAIN || (route.as<rtmsg>().rtm_flags & RTM_F_CLONED) != 0;
  });
  std::stable_sort(missing.begin(), missing.end(),
                   [](const Message& a, const Message& b) { return turn_of(a) < turn_of(b); });
  for (auto& route : missing) {
    auto& header = route.as<rtmsg>();
    header.rtm_flags &= RTNH_F_ONLINK | RTNH_F_PERVASIVE;  // the kernel takes no others
    add(netlink, table, route, table.family == AF_INET ? NLM_F_APPEND : 0);
  }
}

void restore_rules(Netlink& netlink, const Table& table, const std::vector<Message>& all) {
  std::vector<Message> wanted;
  std::copy_if(all.begin(), all.end(), std::back_inserter(wanted),
               [&](const Message& rule) { return rule.as<fib_rule_hdr>().family == table.family; });
  if (wanted.empty()) {
    return;  // CRIU saves those of IPv4 only
  }
  for (const auto& rule : reconcile(netlink, table, wanted, [](const Message&) { return false; })) {
    add(netlink, table, rule, 0);
  }
}

}  // namespace

void save_tables(DumpContext& dump, Netlink& netlink, std::uint32_t ns_id, images::netns_entry& entry) {
  const auto save = [&](const image::Type& type, const std::vector<Message>& messages) {
    auto image = dump.images.create(type, ns_id);
    write(image, messages);
    image.finish();
  };
  save(image::type::ifaddr, list(netlink, addresses));
  for (const auto& [type, table] : {std::pair(image::type::route, routes4), std::pair(image::type::route6, routes6)}) {
    auto routes = list(netlink, table);
    std::erase_if(routes, [](const Message& route) { return !is_own_route(route); });
    save(type, std::move(routes));
  }
  auto rules = list(netlink, rules4);
  const auto more = list(netlink, rules6);
  rules.insert(rules.end(), more.begin(), more.end());
  save(image::type::rule, std::move(rules));

  std::string& bytes = *entry.mutable_extension()->mutable_neighbours();
  Bytes proxies(sizeof(ndmsg));
  reinterpret_cast<ndmsg*>(proxies.data())->ndm_flags = NTF_PROXY;  // told only to who asks for them
  const auto keep = [&](const nlmsghdr& header, std::span<const std::byte> body) {
    const Message message{header, Bytes(body.begin(), body.end())};
    if (body.size() >= sizeof(ndmsg) && is_set_neighbour(message)) {
      bytes.append(reinterpret_cast<const char*>(&header), sizeof header);
      bytes.append(reinterpret_cast<const char*>(body.data()), body.size());
      bytes.resize(NLMSG_ALIGN(bytes.size()));
    }
  };
  netlink.list(neighbours.list, Bytes(sizeof(ndmsg)), keep, neighbours.name);
  netlink.list(neighbours.list, proxies, keep, neighbours.name);

  const nhmsg all{};
  bool nexthops = false;
  netlink.list(
      RTM_GETNEXTHOP, std::as_bytes(std::span(&all, 1)),
      [&](const nlmsghdr&, std::span<const std::byte>) { nexthops = true; }, "nexthop objects");
  if (nexthops) {
    dump.obstacles.emplace_back("not supported by this version", "a nexthop object that routes lead over", 0);
  }
}

void restore_tables(const RestoreContext& context, Netlink& netlink, std::uint32_t ns_id,
                    const images::netns_entry& entry) {
  if (const auto wanted = read(context, image::type::ifaddr, ns_id, addresses)) {
    restore_addresses(netlink, *wanted);
  }
  if (const auto wanted = read(context, image::type::route, ns_id, routes4)) {
    restore_routes(netlink, routes4, *wanted);
  }
  if (const auto wanted = read(context, image::type::route6, ns_id, routes6)) {
    restore_routes(netlink, routes6, *wanted);
  }
  if (const auto wanted = read(context, image::type::rule, ns_id, rules4)) {
    restore_rules(netlink, rules4, *wanted);
    restore_rules(netlink, rules6, *wanted);
  }
  for (const auto& neighbour :
       parse(std::as_bytes(std::span(entry.extension().neighbours())), neighbours, "netns (neighbours)")) {
    add(netlink, neighbours, neighbour, NLM_F_REPLACE);
  }
}

}  // namespace criu::namespaces
