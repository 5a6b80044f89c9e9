// SPDX-License-Identifier: LGPL-2.1-only
// Which UNIX sockets have to be made together, and by whom.
#include <algorithm>
#include <map>
#include <string>

#include "restore_context.hpp"
#include "sockets/diag.hpp"
#include "sockets/unix.hpp"

namespace criu::sockets {

std::unordered_map<std::uint32_t, std::uint32_t> unix_groups(const Checkpoint& checkpoint) {
  std::unordered_map<std::uint32_t, std::uint32_t> groups;
  const auto top = [&](std::uint32_t ino) {
    while (groups.at(ino) != ino) {
      ino = groups[ino] = groups.at(groups.at(ino));
    }
    return ino;
  };
  const auto each = [&](auto visit) {
    for (const auto& [key, file] : checkpoint.files) {
      if (key.first == images::UNIXSK && !is_external(file.usk())) {
        visit(file.usk());
      }
    }
  };
  each([&](const images::unix_sk_entry& socket) { groups[socket.ino()] = socket.ino(); });
  std::map<std::string, std::uint32_t> abstract;
  each([&](const images::unix_sk_entry& socket) {
    if (groups.contains(socket.peer())) {
      groups[top(socket.ino())] = top(socket.peer());
    }
    // Who was accepted has the name of the listener.
    if (!socket.name().empty() && socket.name().front() == '\0') {
      const auto same = abstract.emplace(socket.name(), socket.ino()).first->second;
      groups[top(socket.ino())] = top(same);
    }
  });
  for (auto& [ino, group] : groups) {
    group = top(ino);
  }
  return groups;
}

std::unordered_map<std::uint32_t, pid_t> unix_makers(const Checkpoint& checkpoint) {
  // Listeners first, since whoever connects later is told as well; then who was accepted, whose server may ask; then
  // pairs.
  const auto rank = [](const images::unix_sk_entry& socket) {
    return socket.state() == listening ? 0 : socket.name().empty() ? 2 : 1;
  };
  std::unordered_map<std::uint32_t, const images::unix_sk_entry*> speakers;
  for (const auto& [key, file] : checkpoint.files) {
    if (key.first != images::UNIXSK || is_external(file.usk()) || file.usk().peer_creds().pid() == 0) {
      continue;
    }
    auto& speaker = speakers[checkpoint.unix_groups.at(file.usk().ino())];
    if (speaker == nullptr || rank(file.usk()) < rank(*speaker)) {
      speaker = &file.usk();
    }
  }
  std::unordered_map<std::uint32_t, pid_t> makers;
  for (const auto& [group, speaker] : speakers) {
    makers.emplace(group, static_cast<pid_t>(speaker->peer_creds().pid()));
  }
  return makers;
}

}  // namespace criu::sockets
