// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/net_firewall.hpp"

#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "kernel/netlink.hpp"
#include "sockets/iptables.hpp"
#include "sockets/keeper_line.hpp"
#include "sockets/nft.hpp"

namespace criu::namespaces {

using base::Error;

namespace {

// Numbers in these messages are in network order.
constexpr std::uint32_t owner_flag = __builtin_bswap32(NFT_TABLE_F_OWNER);

// Asked without the library, which most namespaces do not need.
bool has_nftables() {
  kernel::Netlink netlink(NETLINK_NETFILTER);
  const nfgenmsg all{AF_UNSPEC, NFNETLINK_V0, 0};
  bool any = false;
  try {
    netlink.dump(
        NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE, std::as_bytes(std::span(&all, 1)),
        [&](std::span<const std::byte> body) {
          any = true;
          const kernel::Attributes table(body.subspan(std::min(body.size(), sizeof all)));
          if ((table.value<std::uint32_t>(NFTA_TABLE_FLAGS).value_or(0) & owner_flag) != 0) {
            const auto name = table.find(NFTA_TABLE_NAME).value_or(std::span<const std::byte>());
            throw Error("not supported by this version",
                        std::string("the nftables table ") + reinterpret_cast<const char*>(name.data()) +
                            ", which a process owns",
                        0);
          }
        },
        "nftables");
  } catch (const Error& error) {
    if (error.code() != EINVAL && error.code() != EOPNOTSUPP) {
      throw;
    }
    return false;  // a kernel without it
  }
  return any;
}

std::string text_of(const image::Directory& images, const image::Type& type, std::uint32_t ns_id) {
  auto image = images.open(type, ns_id);
  if (!image) {
    return {};
  }
  const auto bytes = image->raw(image->left());
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

Firewall read_firewall() {
  Firewall rules;
  if (has_nftables()) {
    rules.nftables = sockets::Nft(sockets::Nft::Output::whole).run("list ruleset", "save the rules of nftables");
  }
  rules.iptables = sockets::iptables::save_legacy(false);
  rules.ip6tables = sockets::iptables::save_legacy(true);
  return rules;
}

void write_firewall(const Firewall& rules) {
  if (!rules.iptables.empty()) {
    sockets::iptables::restore_legacy(false, rules.iptables);
  }
  if (!rules.ip6tables.empty()) {
    sockets::iptables::restore_legacy(true, rules.ip6tables);
  }
  if (!rules.nftables.empty()) {
    sockets::Nft().run(rules.nftables, "restore the rules of nftables");
  }
}

std::string packed(const Firewall& rules) {
  return sockets::Packed().put_text(rules.nftables).put_text(rules.iptables).put_text(rules.ip6tables).bytes();
}

Firewall unpacked(const std::string& bytes) {
  sockets::Unpacked data(bytes);
  Firewall rules;
  rules.nftables = data.take_text();
  rules.iptables = data.take_text();
  rules.ip6tables = data.take_text();
  return rules;
}

void save_firewall(const image::Directory& images, std::uint32_t ns_id, const Firewall& rules) {
  for (const auto& [type, text] :
       {std::pair(&image::type::nftables, &rules.nftables), std::pair(&image::type::iptables, &rules.iptables),
        std::pair(&image::type::ip6tables, &rules.ip6tables)}) {
    auto image = images.create(*type, ns_id);
    image.raw(std::as_bytes(std::span(*text)));
    image.finish();
  }
}

Firewall saved_firewall(const image::Directory& images, std::uint32_t ns_id) {
  return {.nftables = text_of(images, image::type::nftables, ns_id),
          .iptables = text_of(images, image::type::iptables, ns_id),
          .ip6tables = text_of(images, image::type::ip6tables, ns_id)};
}

}  // namespace criu::namespaces
