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
// Of each group, the task that is to make it, since the kernel tells the peers who did; where that is known.
std::unordered_map<std::uint32_t, pid_t> unix_makers(const Checkpoint&);

constexpr std::uint32_t extern_flag = 1;   // an entry that stands for a peer outside the tree
constexpr std::uint32_t service_flag = 2;  // over it, the tree has asked for its checkpoint

inline bool is_external(const images::unix_sk_entry& entry) { return (entry.uflags() & extern_flag) != 0; }
inline bool is_service(const images::unix_sk_entry& entry) { return (entry.uflags() & service_flag) != 0; }

}  // namespace criu::sockets
