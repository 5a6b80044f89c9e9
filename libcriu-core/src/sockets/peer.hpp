// SPDX-License-Identifier: LGPL-2.1-only
// Who the peer of a UNIX socket was when the two were connected (SO_PEERCRED, SO_PEERGROUPS). The kernel takes that
// from who calls socketpair, listen or connect; so the restored ones are called as whoever did.
#pragma once

#include <sk-unix.pb.h>
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace criu::sockets {

void save_peer(int fd, images::unix_sk_entry&);

// As long as it lives, this task has the user, groups and no rights of another; not its pid.
class Guise {
 public:
  // Nothing changes for an entry that does not tell.
  Guise(const images::unix_sk_entry&, const std::string& what);
  Guise(uid_t user, gid_t group, const std::string& what);
  ~Guise();
  Guise(const Guise&) = delete;
  Guise& operator=(const Guise&) = delete;

 private:
  void put_on(uid_t user, gid_t group, const std::vector<gid_t>* groups, const std::string& what);

  uid_t user_before_;
  gid_t group_before_;
  std::optional<std::vector<gid_t>> groups_before_;
  bool on_ = false;
};

// Says what of it could not be had.
void compare_peer(int fd, const images::unix_sk_entry&, const std::string& what);

// Whether both ends tell of the same, as those of a pair do.
bool same_peer(const images::unix_sk_entry&, const images::unix_sk_entry&);

}  // namespace criu::sockets
