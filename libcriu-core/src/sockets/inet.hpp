// SPDX-License-Identifier: LGPL-2.1-only
// IPv4 and IPv6 sockets: TCP, UDP, UDP-lite, ICMP, raw.
#pragma once

#include "files/kind.hpp"

namespace criu::sockets {

extern const files::Kind inet_kind;

}  // namespace criu::sockets
