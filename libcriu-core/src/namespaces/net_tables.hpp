// SPDX-License-Identifier: LGPL-2.1-only
// The tables of a network namespace that the kernel tells and takes as the same messages: addresses, routes, rules,
// neighbours.
#pragma once

#include <netdev.pb.h>

#include "dump_context.hpp"
#include "kernel/netlink.hpp"
#include "restore_context.hpp"

namespace criu::namespaces {

// In the namespace of the socket. Neighbours go to the entry.
void save_tables(DumpContext&, kernel::Netlink&, std::uint32_t ns_id, images::netns_entry&);

// Once all links are up. What came with them and is not in the image goes.
void restore_tables(const RestoreContext&, kernel::Netlink&, std::uint32_t ns_id, const images::netns_entry&);

}  // namespace criu::namespaces
