// SPDX-License-Identifier: LGPL-2.1-only
// Multicast groups of sockets, with their source filters.
#pragma once

#include <sk-inet.pb.h>

#include <string>
#include <vector>

namespace criu::sockets {

// The kernel tells whether a socket is in a group, not in which it is: all groups that this machine listens to are
// tried. They are read once.
class Groups {
 public:
  void save(int fd, images::inet_sk_entry&, const std::string& what);

 private:
  struct Group {
    std::string device;
    std::string address;  // 4 or 16 bytes
  };
  void load();

  bool loaded_ = false;
  std::vector<Group> groups_;
};

void restore_memberships(int fd, const images::inet_sk_entry&, const std::string& what);

}  // namespace criu::sockets
