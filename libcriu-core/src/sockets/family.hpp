// SPDX-License-Identifier: LGPL-2.1-only
// What the files of all families begin with: whose a descriptor is, and what their entries have alike.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include "files/kind.hpp"
#include "files/saver.hpp"
#include "sockets/call.hpp"

namespace criu::sockets {

// The family of a socket; nothing for whatever else a descriptor stands for.
inline std::optional<int> family_of(const files::Description& description) {
  if (!S_ISSOCK(description.stat.st_mode) || (description.info.flags & O_PATH) != 0) {
    return std::nullopt;
  }
  return try_get(description.own, SOL_SOCKET, SO_DOMAIN);
}

template <int... families>
bool is_of(const files::Description& description) {
  const auto family = family_of(description);
  return family && ((*family == families) || ...);
}

// As the kernel's diagnostics number it.
inline std::uint32_t inode_of(const files::Description& description) {
  return static_cast<std::uint32_t>(description.stat.st_ino);
}

// Fills in what the entries of all families have.
template <typename Entry>
void begin_entry(files::Saver& saver, const files::Description& description, std::uint32_t id, const SocketType& type,
                 Entry& entry) {
  entry.set_id(id);
  if constexpr (requires { entry.set_ino(0); }) {
    entry.set_ino(inode_of(description));
  }
  entry.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  entry.set_ns_id(saver.dump().net_ns_id);
  saver.sockets().options.save(description.own, type, *entry.mutable_opts(), description.what());
}

}  // namespace criu::sockets
