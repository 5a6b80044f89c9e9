// SPDX-License-Identifier: LGPL-2.1-only
// What waits unread in UDP and UDP-lite sockets.
#pragma once

#include <sk-inet.pb.h>

#include <string>

namespace criu::sockets {

// Saves what can be received from the socket, without consuming it.
void save_datagrams(int fd, images::inet_sk_entry&, const std::string& what);

// Puts it back, into a socket that has its name but no peer yet. Each datagram takes the way of any other, over the
// loopback device; those that do not arrive are lost, as on any network, with a warning. With `among_others` other
// sockets have the same port.
void restore_datagrams(int fd, const images::inet_sk_entry&, bool among_others, const std::string& what);

}  // namespace criu::sockets
