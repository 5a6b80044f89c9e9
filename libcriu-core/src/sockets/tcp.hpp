// SPDX-License-Identifier: LGPL-2.1-only
// Established TCP connections, over libsoccr: both directions of what inet.cpp leaves to it.
#pragma once

#include <fdinfo.pb.h>
#include <sys/types.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "options.hpp"
#include "sockets/keepers.hpp"
#include "sockets/tcp_saved.hpp"

namespace criu {

struct DumpContext;
struct RestoreContext;

namespace files {
struct Description;
}

namespace sockets {

// The connections of a dump. Each is held only while it is copied.
class Connections {
 public:
  // A connection that was met; to be saved when all are known.
  void meet(const files::Description&, const images::inet_sk_entry&);
  // Copies it. The first call locks all that were met, the last one unlocks them if the tree goes on.
  void save(DumpContext&, const files::Description&, images::inet_sk_entry&);

  NetworkLockMethod method() const { return method_; }
  // The tables that iptables made for the lock.
  unsigned lock_tables() const { return keepers_ != nullptr ? keepers_->tables() : 0; }
  // Who sees to it that they fall silent with the tree; the lock for the restore is a part of that. nullptr: it goes
  // on.
  Keepers* keepers() { return keepers_.get(); }

 private:
  void begin(const DumpContext&);
  void fetch_from(std::size_t index);

  std::vector<Met> met_;
  std::vector<Connection> ends_;
  std::unordered_map<std::uint32_t, std::size_t> known_;  // by the number of the socket
  NetworkLockMethod method_ = NetworkLockMethod::any;
  std::unique_ptr<Keepers> keepers_;
  std::size_t first_ = 0;          // which of all the first copy is of,
  std::vector<base::Fd> sockets_;  // and the copies, as many as may be open at once
  std::size_t saved_ = 0;
};

// Makes a connection of its saved state in a fresh socket, where it stands still until all tasks run.
void restore_connection(RestoreContext&, int fd, const images::inet_sk_entry&, const std::string& what);

}  // namespace sockets
}  // namespace criu
