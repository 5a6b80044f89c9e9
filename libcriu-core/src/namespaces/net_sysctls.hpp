// SPDX-License-Identifier: LGPL-2.1-only
// The sysctls of a network namespace and of the links in it. /proc/sys/net is always that of the caller's namespace.
#pragma once

#include <netdev.pb.h>

#include <string>

namespace criu::namespaces {

class Users;

// Groups are as the tree sees them in the image, and as this process does in the file.
void read_net_sysctls(images::netns_entry&, const Users&);
// `link` is a name.
void read_link_sysctls(const std::string& link, images::net_device_entry&);

// What is as it should be is not written. `weak`: without those that this kernel does not have.
void write_net_sysctls(const images::netns_entry&, const Users&, bool weak);
void write_link_sysctls(const images::net_device_entry&, bool weak);

}  // namespace criu::namespaces
