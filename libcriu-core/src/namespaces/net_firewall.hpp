// SPDX-License-Identifier: LGPL-2.1-only
// The rule sets of a network namespace, which no call of the kernel tells in a form that lasts: nftables' through its
// library, those of the older iptables through its programs. Neither is to come from the tree's mounts.
#pragma once

#include <string>

#include "image/directory.hpp"

namespace criu::namespaces {

struct Firewall {
  std::string nftables, iptables, ip6tables;  // scripts; empty: there is nothing

  bool empty() const { return nftables.empty() && iptables.empty() && ip6tables.empty(); }
};

// Of the namespace of the caller.
Firewall read_firewall();
void write_firewall(const Firewall&);

// As text, between two processes of this program.
std::string packed(const Firewall&);
Firewall unpacked(const std::string&);

void save_firewall(const image::Directory&, std::uint32_t ns_id, const Firewall&);
Firewall saved_firewall(const image::Directory&, std::uint32_t ns_id);

}  // namespace criu::namespaces
