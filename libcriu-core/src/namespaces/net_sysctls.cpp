// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/net_sysctls.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <functional>
#include <optional>
#include <span>
#include <sstream>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "log.hpp"
#include "namespaces/user.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

using Values = google::protobuf::RepeatedPtrField<images::sysctl_entry>;
using Old = google::protobuf::RepeatedField<google::protobuf::int32>;  // of older images: numbers, -1 for none

// Places in the arrays of the format.
constexpr const char* names4[] = {"accept_local",
                                  "accept_redirects",
                                  "accept_source_route",
                                  "arp_accept",
                                  "arp_announce",
                                  "arp_filter",
                                  "arp_ignore",
                                  "arp_notify",
                                  "bootp_relay",
                                  "disable_policy",
                                  "disable_xfrm",
                                  "force_igmp_version",
                                  "forwarding",
                                  "igmpv2_unsolicited_report_interval",
                                  "igmpv3_unsolicited_report_interval",
                                  "log_martians",
                                  "medium_id",
                                  "promote_secondaries",
                                  "proxy_arp",
                                  "proxy_arp_pvlan",
                                  "route_localnet",
                                  "rp_filter",
                                  "secure_redirects",
                                  "send_redirects",
                                  "shared_media",
                                  "src_valid_mark",
                                  "tag",
                                  "ignore_routes_with_linkdown",
                                  "drop_gratuitous_arp",
                                  "drop_unicast_in_l2_multicast"};

constexpr const char* names6[] = {"accept_dad",
                                  "accept_ra",
                                  "accept_ra_defrtr",
                                  "accept_ra_from_local",
                                  "accept_ra_min_hop_limit",
                                  "accept_ra_mtu",
                                  "accept_ra_pinfo",
                                  "accept_ra_rt_info_max_plen",
                                  "accept_ra_rtr_pref",
                                  "accept_redirects",
                                  "accept_source_route",
                                  "autoconf",
                                  "dad_transmits",
                                  "disable_ipv6",
                                  "drop_unicast_in_l2_multicast",
                                  "drop_unsolicited_na",
                                  "force_mld_version",
                                  "force_tllao",
                                  "forwarding",
                                  "hop_limit",
                                  "ignore_routes_with_linkdown",
                                  "keep_addr_on_down",
                                  "max_addresses",
                                  "max_desync_factor",
                                  "mldv1_unsolicited_report_interval",
                                  "mldv2_unsolicited_report_interval",
                                  "mtu",
                                  "ndisc_notify",
                                  "optimistic_dad",
                                  "proxy_ndp",
                                  "regen_max_retry",
                                  "router_probe_interval",
                                  "router_solicitation_delay",
                                  "router_solicitation_interval",
                                  "router_solicitations",
                                  "stable_secret",
                                  "suppress_frag_ndisc",
                                  "temp_prefered_lft",
                                  "temp_valid_lft",
                                  "use_oif_addrs_only",
                                  "use_optimistic",
                                  "use_tempaddr"};

constexpr std::size_t stable_secret = 35;
constexpr const char* queue_length = "unix/max_dgram_qlen";
constexpr const char* ping_groups = "ipv4/ping_group_range";
constexpr const char* no_groups = "1\t0";

enum class Family { v4, v6 };

std::span<const char* const> names_of(Family family) {
  return family == Family::v4 ? std::span<const char* const>(names4) : std::span<const char* const>(names6);
}

std::string directory_of(Family family, const std::string& link) {
  return fmt::format("{}/conf/{}", family == Family::v4 ? "ipv4" : "ipv6", link);
}

std::string path_of(const std::string& name) { return "/proc/sys/net/" + name; }

// Nothing where there is no such value, or none yet (EIO, of a secret).
std::optional<std::string> read(const std::string& name) {
  const base::Fd file(::open(path_of(name).c_str(), O_RDONLY | O_CLOEXEC));
  char text[256];
  const auto size = file ? ::read(file.get(), text, sizeof text) : -1;
  if (size < 0) {
    return std::nullopt;
  }
  std::string value(text, static_cast<std::size_t>(size));
  while (value.ends_with('\n')) {
    value.pop_back();
  }
  return value;
}

void read_number(const std::string& name, images::sysctl_entry& entry) {
  entry.set_type(images::CTL_32);
  int number = 0;
  if (const auto text = read(name);
      text && std::from_chars(text->data(), text->data() + text->size(), number).ec == std::errc{}) {
    entry.set_iarg(number);
  }
}

void read_text(const std::string& name, images::sysctl_entry& entry) {
  entry.set_type(images::CTL_STR);
  if (const auto text = read(name)) {
    entry.set_sarg(*text);
  }
}

void read_all(Family family, const std::string& link, Values& values) {
  const auto names = names_of(family);
  const auto directory = directory_of(family, link);
  if (::access(path_of(directory).c_str(), F_OK) != 0) {
    return;  // a kernel without that family
  }
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto name = fmt::format("{}/{}", directory, names[i]);
    if (family == Family::v6 && i == stable_secret) {
      read_text(name, *values.Add());
    } else {
      read_number(name, *values.Add());
    }
  }
}

void write(const std::string& name, const std::string& value, bool weak) {
  const auto now = read(name);
  if (now == value) {
    return;
  }
  const auto path = path_of(name);
  const base::Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file && errno == ENOENT && weak) {
    LOG_WARN("this kernel has no {}", path);
    return;
  }
  if (!file) {
    throw Error("open", path, errno, errno == ENOENT ? "--weak-sysctls goes on without it" : "");
  }
  check(::write(file.get(), value.data(), value.size()), "set", fmt::format("{} to {}", path, value));
}

std::optional<std::string> value_of(const Values& values, const Old& old, std::size_t index) {
  const auto at = static_cast<int>(index);
  if (values.empty()) {
    return at < old.size() && old[at] != -1 ? std::optional(std::to_string(old[at])) : std::nullopt;
  }
  if (at >= values.size()) {
    return std::nullopt;
  }
  const auto& entry = values[at];
  if (entry.type() == images::CTL_STR) {
    return entry.has_sarg() ? std::optional(entry.sarg()) : std::nullopt;
  }
  return entry.has_iarg() ? std::optional(std::to_string(entry.iarg())) : std::nullopt;
}

// Forwarding changes others of the family as it is written, and accept_redirects what may be written to it.
void write_all(Family family, const std::string& link, const Values& values, const Old& old, bool weak) {
  const auto names = names_of(family);
  const auto directory = directory_of(family, link);
  const auto is_named = [&](std::size_t i, std::string_view name) { return names[i] == name; };
  for (const int turn : {0, 1, 2}) {
    for (std::size_t i = 0; i < names.size(); ++i) {
      const int its_turn = is_named(i, "forwarding") ? 0 : is_named(i, "accept_redirects") ? 2 : 1;
      if (const auto value = value_of(values, old, i); value && its_turn == turn) {
        write(fmt::format("{}/{}", directory, names[i]), *value, weak);
      }
    }
  }
}

// `translate` gets the lowest and the highest; the kernel writes an empty range in one way only.
std::string translated(const std::string& groups,
                       const std::function<std::optional<Users::Range>(Users::Range)>& translate) {
  std::istringstream numbers(groups);
  Users::Range range;
  if (!(numbers >> range.first >> range.second) || range.first > range.second) {
    return groups;
  }
  const auto found = translate(range);
  return found ? fmt::format("{}\t{}", found->first, found->second) : no_groups;
}

}  // namespace

void read_net_sysctls(images::netns_entry& entry, const Users& users) {
  read_all(Family::v4, "default", *entry.mutable_def_conf4());
  read_all(Family::v4, "all", *entry.mutable_all_conf4());
  read_all(Family::v6, "default", *entry.mutable_def_conf6());
  read_all(Family::v6, "all", *entry.mutable_all_conf6());
  read_number(queue_length, *entry.add_unix_conf());
  auto& groups = *entry.add_ipv4_sysctl();
  groups.set_type(images::CTL_STR);
  if (const auto text = read(ping_groups)) {
    const auto value = translated(*text, [&](auto range) { return users.groups(range); });
    if (value != no_groups) {
      groups.set_sarg(value + "\n");
    }
  }
}

void read_link_sysctls(const std::string& link, images::net_device_entry& entry) {
  read_all(Family::v4, link, *entry.mutable_conf4());
  read_all(Family::v6, link, *entry.mutable_conf6());
}

void write_net_sysctls(const images::netns_entry& entry, const Users& users, bool weak) {
  // In this order: what is written for all goes to the default, too.
  write_all(Family::v4, "all", entry.all_conf4(), entry.all_conf(), weak);
  write_all(Family::v4, "default", entry.def_conf4(), entry.def_conf(), weak);
  write_all(Family::v6, "all", entry.all_conf6(), {}, weak);
  write_all(Family::v6, "default", entry.def_conf6(), {}, weak);
  if (entry.unix_conf_size() > 1 || entry.ipv4_sysctl_size() > 1) {
    throw Error("corrupt image", "netns: more than one value of a kind that has one", 0);
  }
  if (const auto length = value_of(entry.unix_conf(), {}, 0)) {
    write(queue_length, *length, weak);
  }
  if (auto groups = value_of(entry.ipv4_sysctl(), {}, 0)) {
    while (groups->ends_with('\n')) {
      groups->pop_back();
    }
    write(ping_groups, translated(*groups, [&](auto range) { return users.groups_outside(range); }), weak);
  }
}

void write_link_sysctls(const images::net_device_entry& entry, bool weak) {
  write_all(Family::v4, entry.name(), entry.conf4(), entry.conf(), weak);
  write_all(Family::v6, entry.name(), entry.conf6(), {}, weak);
}

}  // namespace criu::namespaces
