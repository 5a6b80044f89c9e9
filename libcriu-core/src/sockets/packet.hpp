// SPDX-License-Identifier: LGPL-2.1-only
// Packet sockets with their rings, fanout groups and multicast lists.
#pragma once

#include "files/kind.hpp"

namespace criu::sockets {

extern const files::Kind packet_kind;

}  // namespace criu::sockets
