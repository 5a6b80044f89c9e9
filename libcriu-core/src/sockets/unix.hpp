// SPDX-License-Identifier: LGPL-2.1-only
// UNIX sockets: their names, peers, queues and connections that wait to be accepted.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "files/kind.hpp"

namespace criu::sockets {

extern const files::Kind unix_kind;

// By socket number, the one that stands for all that it is connected with, over however many steps.
std::unordered_map<std::uint32_t, std::uint32_t> unix_groups(const Checkpoint&);

}  // namespace criu::sockets
