// SPDX-License-Identifier: LGPL-2.1-only
// What the sockets of one dump share.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <unordered_set>

#include "options.hpp"
#include "sockets/diag.hpp"
#include "sockets/memberships.hpp"
#include "sockets/socket_options.hpp"

namespace criu {

struct DumpContext;

namespace sockets {

class Connections;
class Keepers;

struct Survey {
  Survey();
  ~Survey();
  Survey(const Survey&) = delete;
  Survey& operator=(const Survey&) = delete;

  Diagnostics diagnostics;
  SocketOptions options;
  Groups groups;
  std::unordered_set<std::uint32_t> unix_met;      // UNIX sockets of the tree
  std::unordered_set<std::uint32_t> unix_outside;  // peers that have an entry though they are not of the tree
  // Names of peers in other network namespaces, whose diagnostics are others.
  std::unordered_map<std::uint32_t, std::string> unix_elsewhere;
  std::unique_ptr<Connections> connections;  // established TCP; none: nullptr

  NetworkLockMethod lock_method(const DumpContext&) const;
  unsigned lock_tables() const;
  // nullptr: there are no connections, or the tree goes on.
  Keepers* keepers();
};

}  // namespace sockets
}  // namespace criu
