// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/net_links.hpp"

#include <fmt/format.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "files/external.hpp"
#include "namespaces/net_sysctls.hpp"

namespace criu::namespaces {

using base::Error;
using kernel::Attributes;
using kernel::Netlink;
using kernel::Request;

namespace {

// What a user sets; the rest is the kernel's.
constexpr unsigned settable_flags =
    IFF_UP | IFF_DEBUG | IFF_NOTRAILERS | IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI | IFF_MULTICAST | IFF_DYNAMIC;
// Made by the kernel in every namespace once the module is there.
constexpr std::array<std::string_view, 10> fallbacks = {"gre0",    "gretap0", "erspan0", "sit0",     "tunl0",
                                                        "ip_vti0", "ip6tnl0", "ip6gre0", "ip6_vti0", "ip6erspan0"};

struct Seen {
  ifinfomsg header{};
  std::string name, kind;
  std::span<const std::byte> data, port;  // IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA
  Attributes attributes;
};

std::string text_of(std::span<const std::byte> bytes) {
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  return {text, ::strnlen(text, bytes.size())};
}

void list_links(Netlink& netlink, const std::function<void(const Seen&)>& see) {
  const ifinfomsg all{};
  netlink.dump(
      RTM_GETLINK, std::as_bytes(std::span(&all, 1)),
      [&](std::span<const std::byte> body) {
        if (body.size() < sizeof(ifinfomsg)) {
          return;
        }
        Seen link{.attributes = Attributes(body.subspan(NLMSG_ALIGN(sizeof(ifinfomsg))))};
        std::memcpy(&link.header, body.data(), sizeof link.header);
        link.name = text_of(link.attributes.find(IFLA_IFNAME).value_or(std::span<const std::byte>()));
        if (const auto info = link.attributes.find(IFLA_LINKINFO)) {
          const Attributes more(*info);
          link.kind = text_of(more.find(IFLA_INFO_KIND).value_or(std::span<const std::byte>()));
          link.data = more.find(IFLA_INFO_DATA).value_or(std::span<const std::byte>());
          link.port = more.find(IFLA_INFO_SLAVE_DATA).value_or(std::span<const std::byte>());
        }
        see(link);
      },
      "network links");
}

std::optional<std::uint8_t> address_generation(const Seen& link) {
  const auto families = link.attributes.find(IFLA_AF_SPEC);
  const auto v6 = families ? Attributes(*families).find(AF_INET6) : std::nullopt;
  return v6 ? Attributes(*v6).value<std::uint8_t>(IFLA_INET6_ADDR_GEN_MODE) : std::nullopt;
}

std::string bytes_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void put_type(const Seen& link, images::net_device_entry& entry) {
  if (link.header.ifi_type == ARPHRD_LOOPBACK) {
    entry.set_type(images::LOOPBACK);
  } else if (link.kind == "veth") {
    entry.set_type(images::VETH);
  } else if (link.kind == "bridge") {
    entry.set_type(images::BRIDGE);
    if (Attributes(link.data).value<std::uint8_t>(IFLA_BR_VLAN_FILTERING).value_or(0) != 0) {
      throw Error("not supported by this version", fmt::format("the bridge {} filters VLANs", link.name), 0);
    }
    entry.mutable_extension()->set_data(bytes_of(link.data));
  } else if (link.kind == "macvlan") {
    entry.set_type(images::MACVLAN);
    const Attributes data(link.data);
    entry.mutable_macvlan()->set_mode(data.value<std::uint32_t>(IFLA_MACVLAN_MODE).value_or(MACVLAN_MODE_VEPA));
    entry.mutable_macvlan()->set_flags(data.value<std::uint16_t>(IFLA_MACVLAN_FLAGS).value_or(0));
    if (entry.macvlan().mode() == MACVLAN_MODE_SOURCE) {
      throw Error("not supported by this version",
                  fmt::format("the network link {}: a macvlan in mode source", link.name), 0);
    }
  } else {
    throw Error("not supported by this version",
                fmt::format("the network link {} of kind {}", link.name,
                            link.kind.empty() ? fmt::format("{} (a device)", link.header.ifi_type) : link.kind),
                0, "lo, veth, bridge and macvlan are; --external net[INODE]:NAME leaves the whole namespace to others");
  }
}

void put_extension(const Seen& link, images::net_device_entry& entry) {
  auto& extension = *entry.mutable_extension();
  if (const auto length = link.attributes.value<std::uint32_t>(IFLA_TXQLEN)) {
    extension.set_queue_length(*length);
  }
  if (const auto alias = link.attributes.find(IFLA_IFALIAS)) {
    extension.set_alias(text_of(*alias));
  }
  if (const auto mode = address_generation(link)) {
    extension.set_address_generation(*mode);
  }
  if (entry.has_master()) {
    extension.set_port(bytes_of(link.port));
  }
}

images::net_device_entry entry_of(const Seen& link, std::uint32_t ns_id) {
  images::net_device_entry entry;
  put_type(link, entry);
  const auto index = static_cast<std::uint32_t>(link.header.ifi_index);
  entry.set_ifindex(index);
  entry.set_mtu(link.attributes.value<std::uint32_t>(IFLA_MTU).value_or(0));
  entry.set_flags(link.header.ifi_flags);
  entry.set_name(link.name);
  if (const auto address = link.attributes.find(IFLA_ADDRESS); address && entry.type() != images::LOOPBACK) {
    entry.set_address(bytes_of(*address));
  }
  entry.set_peer_ifindex(link.attributes.value<std::uint32_t>(IFLA_LINK).value_or(index));
  // There is one namespace: what is not in it is in none that is saved.
  if (!link.attributes.find(IFLA_LINK_NETNSID)) {
    entry.set_peer_nsid(ns_id);
  }
  if (const auto master = link.attributes.value<std::uint32_t>(IFLA_MASTER)) {
    entry.set_master(*master);
  }
  put_extension(link, entry);
  read_link_sysctls(link.name, entry);
  return entry;
}

std::string what_of(const images::net_device_entry& link) { return fmt::format("the network link {}", link.name()); }

ifinfomsg header_of(std::uint32_t index, unsigned flags = 0, unsigned change = 0) {
  ifinfomsg header{};
  header.ifi_index = static_cast<int>(index);
  header.ifi_flags = flags;
  header.ifi_change = change;
  return header;
}

// What a link is made with, rather than being changed later.
Request newborn(const images::net_device_entry& link) {
  Request request(header_of(link.ifindex()));
  request.add_text(IFLA_IFNAME, link.name());
  request.add<std::uint32_t>(IFLA_MTU, link.mtu());
  if (link.has_address()) {
    request.add_bytes(IFLA_ADDRESS, std::as_bytes(std::span(link.address())));
  }
  return request;
}

std::span<const std::byte> as_bytes(const std::string& bytes) { return std::as_bytes(std::span(bytes)); }

constexpr unsigned create_new = NLM_F_CREATE | NLM_F_EXCL;

// Of what the kernel tells, what it takes: the rest is state, and some of that it refuses.
constexpr auto bridge_settings = std::to_array<unsigned>({IFLA_BR_FORWARD_DELAY,
                                                          IFLA_BR_HELLO_TIME,
                                                          IFLA_BR_MAX_AGE,
                                                          IFLA_BR_AGEING_TIME,
                                                          IFLA_BR_STP_STATE,
                                                          IFLA_BR_PRIORITY,
                                                          IFLA_BR_VLAN_PROTOCOL,
                                                          IFLA_BR_GROUP_FWD_MASK,
                                                          IFLA_BR_MCAST_ROUTER,
                                                          IFLA_BR_MCAST_SNOOPING,
                                                          IFLA_BR_MCAST_QUERY_USE_IFADDR,
                                                          IFLA_BR_MCAST_QUERIER,
                                                          IFLA_BR_MCAST_HASH_MAX,
                                                          IFLA_BR_MCAST_LAST_MEMBER_CNT,
                                                          IFLA_BR_MCAST_STARTUP_QUERY_CNT,
                                                          IFLA_BR_MCAST_LAST_MEMBER_INTVL,
                                                          IFLA_BR_MCAST_MEMBERSHIP_INTVL,
                                                          IFLA_BR_MCAST_QUERIER_INTVL,
                                                          IFLA_BR_MCAST_QUERY_INTVL,
                                                          IFLA_BR_MCAST_QUERY_RESPONSE_INTVL,
                                                          IFLA_BR_MCAST_STARTUP_QUERY_INTVL,
                                                          IFLA_BR_NF_CALL_IPTABLES,
                                                          IFLA_BR_NF_CALL_IP6TABLES,
                                                          IFLA_BR_NF_CALL_ARPTABLES,
                                                          IFLA_BR_VLAN_DEFAULT_PVID,
                                                          IFLA_BR_VLAN_STATS_ENABLED,
                                                          IFLA_BR_MCAST_STATS_ENABLED,
                                                          IFLA_BR_MCAST_IGMP_VERSION,
                                                          IFLA_BR_MCAST_MLD_VERSION,
                                                          IFLA_BR_VLAN_STATS_PER_PORT});
constexpr auto port_settings = std::to_array<unsigned>(
    {IFLA_BRPORT_PRIORITY, IFLA_BRPORT_COST, IFLA_BRPORT_MODE, IFLA_BRPORT_GUARD, IFLA_BRPORT_PROTECT,
     IFLA_BRPORT_FAST_LEAVE, IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD, IFLA_BRPORT_PROXYARP,
     IFLA_BRPORT_PROXYARP_WIFI, IFLA_BRPORT_MULTICAST_ROUTER, IFLA_BRPORT_MCAST_TO_UCAST, IFLA_BRPORT_MCAST_FLOOD,
     IFLA_BRPORT_BCAST_FLOOD, IFLA_BRPORT_GROUP_FWD_MASK, IFLA_BRPORT_NEIGH_SUPPRESS, IFLA_BRPORT_VLAN_TUNNEL,
     IFLA_BRPORT_ISOLATED, IFLA_BRPORT_LOCKED});

void copy(const std::string& attributes, std::span<const unsigned> settings, Request& to) {
  Attributes(as_bytes(attributes)).each([&](unsigned type, std::span<const std::byte> value) {
    if (std::find(settings.begin(), settings.end(), type) != settings.end()) {
      to.add_bytes(type, value);
    }
  });
}

}  // namespace

void save_links(DumpContext& dump, Netlink& netlink, std::uint32_t ns_id) {
  auto image = dump.images.create(image::type::netdev, ns_id);
  list_links(netlink, [&](const Seen& link) {
    const bool fallback = std::find(fallbacks.begin(), fallbacks.end(), link.name) != fallbacks.end();
    if (!fallback || (link.header.ifi_flags & IFF_UP) != 0) {
      dump.attempt([&] { image.write(entry_of(link, ns_id)); });
    }
  });
  image.finish();
}

void remove_crossing_links(Netlink& netlink) {
  std::vector<int> crossing;
  list_links(netlink, [&](const Seen& link) {
    if (link.kind == "veth" && link.attributes.find(IFLA_LINK_NETNSID)) {
      crossing.push_back(link.header.ifi_index);
    }
  });
  for (const auto index : crossing) {
    const Request request(header_of(static_cast<std::uint32_t>(index)));
    netlink.attempt(RTM_DELLINK, 0, request.bytes(), "a link");
  }
}

RestoredLinks::RestoredLinks(const RestoreContext& context, std::uint32_t ns_id, Netlink& outside, int outer_ns)
    : context_(context), ns_id_(ns_id), outside_(outside), outer_ns_(outer_ns) {
  auto image = context.images.open(image::type::netdev, ns_id);
  for (images::net_device_entry entry; image && image->next(entry);) {
    if (entry.name().empty() || entry.name().size() >= IFNAMSIZ || entry.ifindex() == 0) {
      throw Error("corrupt image", fmt::format("netdev-{}: a link {} \"{}\"", ns_id, entry.ifindex(), entry.name()), 0);
    }
    links_.push_back(entry);
  }
  for (const auto& link : links_) {
    find_outside(link);
    if (link.has_master() && link.master() != 0 && find(link.master()) == nullptr) {
      throw Error("corrupt checkpoint", fmt::format("{}: its bridge {} is missing", what_of(link), link.master()), 0);
    }
  }
}

const images::net_device_entry* RestoredLinks::find(unsigned index) const {
  const auto found =
      std::find_if(links_.begin(), links_.end(), [&](const auto& link) { return link.ifindex() == index; });
  return found == links_.end() ? nullptr : &*found;
}

unsigned RestoredLinks::outer_index(const std::string& name, const std::string& wanted_for) {
  unsigned index = 0;
  list_links(outside_, [&](const Seen& link) {
    if (link.name == name) {
      index = static_cast<unsigned>(link.header.ifi_index);
    }
  });
  if (index == 0) {
    throw Error("cannot restore", fmt::format("{}: there is no link {} here", wanted_for, name), 0);
  }
  return index;
}

void RestoredLinks::find_outside(const images::net_device_entry& link) {
  const auto& options = context_.options;
  const auto what = what_of(link);
  if (const auto name = files::external_value(options, fmt::format("netdev[{}]", link.name()))) {
    moved_[link.name()] = {.name = *name, .bridge = {}};
    outer_index(*name, what);
    return;
  }
  const bool inside = link.has_peer_nsid() && link.peer_nsid() == ns_id_;
  if (link.type() == images::VETH && !inside) {
    const auto given = files::external_value(options, fmt::format("veth[{}]", link.name()));
    if (!given) {
      throw Error("cannot restore", fmt::format("{}: its other end was outside", what), 0,
                  fmt::format("--external veth[{}]:NAME says what that is called, and NAME@BRIDGE where it belongs",
                              link.name()));
    }
    const auto at = given->find('@');
    Outer outer{.name = given->substr(0, at), .bridge = at == given->npos ? "" : given->substr(at + 1)};
    outer.bridge_index = outer.bridge.empty() ? 0 : outer_index(outer.bridge, what);
    veths_[link.name()] = outer;
  } else if (link.type() == images::MACVLAN && !(inside && find(link.peer_ifindex()) != nullptr)) {
    const auto given = files::external_value(options, fmt::format("macvlan[{}]", link.name()));
    if (!given) {
      throw Error("cannot restore", fmt::format("{}: what it shares was outside", what), 0,
                  fmt::format("--external macvlan[{}]:LINK says which one it is here", link.name()));
    }
    macvlans_[link.name()] = {.name = *given, .bridge = *given, .bridge_index = outer_index(*given, what)};
  }
}

void RestoredLinks::make(Netlink& inside, int inner_ns) {
  inside_ = &inside;
  inner_ns_ = inner_ns;
  // What shares a link comes after all that could be shared.
  for (const bool sharing : {false, true}) {
    for (const auto& link : links_) {
      if ((link.type() == images::MACVLAN) == sharing) {
        create(link);
      }
    }
  }
  for (const auto& link : links_) {
    configure(link);
  }
  for (const auto& link : links_) {
    raise(link);
  }
}

void RestoredLinks::create(const images::net_device_entry& link) {
  if (const auto moved = moved_.find(link.name()); moved != moved_.end()) {
    take(link, moved->second.name);
    return;
  }
  switch (link.type()) {
    case images::LOOPBACK:
      break;  // it comes with the namespace
    case images::VETH:
      create_veth(link);
      break;
    case images::BRIDGE:
      create_bridge(link);
      break;
    case images::MACVLAN:
      create_macvlan(link);
      break;
    default:
      throw Error("not supported by this version",
                  fmt::format("{} of kind {}", what_of(link), static_cast<int>(link.type())), 0);
  }
}

void RestoredLinks::create_veth(const images::net_device_entry& link) {
  const auto outer = veths_.find(link.name());
  const auto* peer = outer == veths_.end() ? find(link.peer_ifindex()) : nullptr;
  if (outer == veths_.end() && (peer == nullptr || peer->type() != images::VETH)) {
    throw Error("corrupt checkpoint",
                fmt::format("{}: its other end {} is missing", what_of(link), link.peer_ifindex()), 0);
  }
  // Pairs come into being together, with the end that is first in the image.
  if (peer != nullptr && peer < &link) {
    return;
  }
  auto request = newborn(link);
  request.nest(IFLA_LINKINFO, [&](Request& info) {
    info.add_text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, [&](Request& data) {
      data.nest(VETH_INFO_PEER, [&](Request& other) {
        if (peer != nullptr) {
          const auto bytes = newborn(*peer);
          other.append(bytes.bytes().data(), bytes.bytes().size());
          return;
        }
        const auto header = header_of(0);
        other.append(&header, sizeof header);
        other.add_text(IFLA_IFNAME, outer->second.name);
        other.add<std::uint32_t>(IFLA_MTU, link.mtu());
        other.add<std::uint32_t>(IFLA_NET_NS_FD, static_cast<std::uint32_t>(outer_ns_));
      });
    });
  });
  inside_->change(
      RTM_NEWLINK, create_new, request.bytes(),
      peer != nullptr ? what_of(link) : fmt::format("{} with the end {}", what_of(link), outer->second.name));
  if (peer == nullptr) {
    made_.push_back(link.ifindex());
  }
}

void RestoredLinks::create_bridge(const images::net_device_entry& link) {
  auto request = newborn(link);
  request.nest(IFLA_LINKINFO, [&](Request& info) {
    info.add_text(IFLA_INFO_KIND, "bridge");
    info.nest(IFLA_INFO_DATA, [&](Request& data) {
      const auto& told = link.extension().data();
      copy(told, bridge_settings, data);
      // What is off is so in a new bridge, and not every kernel can be told. The options are values and a mask.
      const Attributes attributes(as_bytes(told));
      using Options = std::array<std::uint32_t, 2>;
      if (const auto options = attributes.value<Options>(IFLA_BR_MULTI_BOOLOPT); options && options->front() != 0) {
        data.add(IFLA_BR_MULTI_BOOLOPT, Options{options->front(), options->front()});
      }
    });
  });
  inside_->change(RTM_NEWLINK, create_new, request.bytes(), what_of(link));
}

// From outside, where the index of what it shares means something.
void RestoredLinks::create_macvlan(const images::net_device_entry& link) {
  const auto outer = macvlans_.find(link.name());
  auto request = newborn(link);
  request.add<std::uint32_t>(IFLA_LINK, outer != macvlans_.end() ? outer->second.bridge_index : link.peer_ifindex());
  request.nest(IFLA_LINKINFO, [&](Request& info) {
    info.add_text(IFLA_INFO_KIND, "macvlan").nest(IFLA_INFO_DATA, [&](Request& data) {
      data.add<std::uint32_t>(IFLA_MACVLAN_MODE, link.macvlan().mode());
      data.add<std::uint16_t>(IFLA_MACVLAN_FLAGS, static_cast<std::uint16_t>(link.macvlan().flags()));
    });
  });
  if (outer != macvlans_.end()) {
    request.add<std::uint32_t>(IFLA_NET_NS_FD, static_cast<std::uint32_t>(inner_ns_));
  }
  auto& netlink = outer != macvlans_.end() ? outside_ : *inside_;
  netlink.change(RTM_NEWLINK, create_new, request.bytes(), what_of(link));
}

void RestoredLinks::take(const images::net_device_entry& link, const std::string& outer_name) {
  Request request(header_of(outer_index(outer_name, what_of(link))));
  request.add<std::uint32_t>(IFLA_NET_NS_FD, static_cast<std::uint32_t>(inner_ns_));
  request.add_text(IFLA_IFNAME, link.name());
  request.add<std::uint32_t>(IFLA_NEW_IFINDEX, link.ifindex());
  outside_.change(RTM_NEWLINK, 0, request.bytes(), fmt::format("{}, here {}", what_of(link), outer_name));
  taken_.emplace_back(link.ifindex(), outer_name);
}

void RestoredLinks::configure(const images::net_device_entry& link) {
  Request request(header_of(link.ifindex()));
  request.add<std::uint32_t>(IFLA_MTU, link.mtu());
  if (link.has_address()) {
    request.add_bytes(IFLA_ADDRESS, as_bytes(link.address()));
  }
  if (link.has_master() && link.master() != 0) {
    request.add<std::uint32_t>(IFLA_MASTER, link.master());
  }
  const auto& extension = link.extension();
  if (extension.has_queue_length()) {
    request.add<std::uint32_t>(IFLA_TXQLEN, extension.queue_length());
  }
  if (extension.has_alias()) {
    request.add_bytes(IFLA_IFALIAS, as_bytes(extension.alias()));
  }
  inside_->change(RTM_NEWLINK, 0, request.bytes(), what_of(link));
  if (!extension.port().empty()) {
    Request port(header_of(link.ifindex()));
    port.nest(IFLA_LINKINFO, [&](Request& info) {
      info.add_text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, [&](Request& data) {
        copy(extension.port(), port_settings, data);
      });
    });
    inside_->change(RTM_NEWLINK, 0, port.bytes(), fmt::format("{} as the port of a bridge", what_of(link)));
  }
  write_link_sysctls(link, context_.options.weak_sysctls);
}

// Addresses that a link takes by itself would be looked for on the network first; those that it had come from the
// image.
void RestoredLinks::raise(const images::net_device_entry& link) {
  if (link.extension().has_address_generation()) {
    Request quiet(header_of(link.ifindex()));
    quiet.nest(IFLA_AF_SPEC, [](Request& families) {
      families.nest(AF_INET6,
                    [](Request& v6) { v6.add<std::uint8_t>(IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE); });
    });
    inside_->attempt(RTM_SETLINK, 0, quiet.bytes(), what_of(link));
  }
  const Request request(header_of(link.ifindex(), link.flags() & settable_flags, settable_flags));
  inside_->change(RTM_NEWLINK, 0, request.bytes(), what_of(link));
}

void RestoredLinks::settle() {
  for (const auto& link : links_) {
    if (!link.extension().has_address_generation()) {
      continue;
    }
    Request request(header_of(link.ifindex()));
    request.nest(IFLA_AF_SPEC, [&](Request& families) {
      families.nest(AF_INET6, [&](Request& v6) {
        v6.add(IFLA_INET6_ADDR_GEN_MODE, static_cast<std::uint8_t>(link.extension().address_generation()));
      });
    });
    inside_->change(RTM_SETLINK, 0, request.bytes(), fmt::format("{} (addresses it takes itself)", what_of(link)));
  }
}

void RestoredLinks::connect() {
  for (const auto& [name, outer] : veths_) {
    if (outer.bridge.empty()) {
      continue;
    }
    const auto what = fmt::format("{} as a port of the bridge {}", outer.name, outer.bridge);
    Request request(header_of(outer_index(outer.name, what), IFF_UP, IFF_UP));
    request.add<std::uint32_t>(IFLA_MASTER, outer.bridge_index);
    outside_.change(RTM_NEWLINK, 0, request.bytes(), what);
  }
}

void RestoredLinks::undo() {
  if (inside_ == nullptr) {
    return;
  }
  for (const auto index : made_) {
    const Request request(header_of(index));
    inside_->attempt(RTM_DELLINK, 0, request.bytes(), "a link");
  }
  for (const auto& [index, name] : taken_) {
    Request request(header_of(index));
    request.add<std::uint32_t>(IFLA_NET_NS_FD, static_cast<std::uint32_t>(outer_ns_)).add_text(IFLA_IFNAME, name);
    inside_->attempt(RTM_NEWLINK, 0, request.bytes(), "a link");
  }
}

}  // namespace criu::namespaces
