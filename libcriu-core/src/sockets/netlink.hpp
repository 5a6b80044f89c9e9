// SPDX-License-Identifier: LGPL-2.1-only
// Netlink sockets with their groups.
#pragma once

#include "files/kind.hpp"

namespace criu::sockets {

extern const files::Kind netlink_kind;

}  // namespace criu::sockets
