// SPDX-License-Identifier: LGPL-2.1-only
// Established TCP connections, over libsoccr: both directions of what inet.cpp leaves to it.
#pragma once

#include <fdinfo.pb.h>
#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "options.hpp"
#include "sockets/farewell.hpp"
#include "sockets/tcp_saved.hpp"

namespace criu {

struct DumpContext;
struct RestoreContext;

namespace files {
struct Description;
}

namespace sockets {

// The connections of a dump. Each is held only while it is copied: a dump that is killed leaves none that stands still.
class Connections {
 public:
  // A connection that was met; to be saved when all are known.
  void meet(const files::Description&, const images::inet_sk_entry&);
  // Copies it. The first call locks all that were met.
  void save(DumpContext&, const files::Description&, images::inet_sk_entry&);

  NetworkLockMethod method() const { return method_; }
  // The tables that iptables made for the lock.
  unsigned lock_tables() const { return lock_ != nullptr ? lock_->tables() : 0; }
  // How they are to fall silent with the tree, of which the lock for the restore is a part.
  std::unique_ptr<Farewell> farewell(const DumpContext&);

 private:
  void lock(const DumpContext&);

  std::vector<Met> met_;
  std::vector<Connection> ends_;
  NetworkLockMethod method_ = NetworkLockMethod::any;
  std::unique_ptr<NetworkLock> lock_;
};

// Makes a connection of its saved state in a fresh socket, where it stands still until all tasks run.
void restore_connection(RestoreContext&, int fd, const images::inet_sk_entry&, const std::string& what);

}  // namespace sockets
}  // namespace criu
