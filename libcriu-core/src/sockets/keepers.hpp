// SPDX-License-Identifier: LGPL-2.1-only
// What a dump does to connections must not be what is left of them when the dumping program is killed. So before the
// first of them is touched there are processes of our own that have copies of the sockets and of what owns the network
// lock, and that hear of the program's death a little before the kernel lets its tasks run.
//
// They put back the connection that was being copied. And the end of a dump whose tree does not go on, when the
// connections must fall silent for good, has no moment that is too early or too late: earlier, and a dump that is
// killed would leave a tree that cannot talk; later, and the kernel would tell the peers that they are closed. Whether
// the tree is gone decides.
//
// This is the side of who copies; the other one is sockets/guard.
#pragma once

#include <sys/types.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "sockets/network_lock.hpp"
#include "sockets/tcp_saved.hpp"  // before <signal.h>, where a name of the images is a macro

namespace criu::sockets {

struct Line;

// A connection, and where it is open.
struct Met {
  pid_t pid;
  int fd;
  std::string what;
};

class Keepers {
 public:
  // Chooses the method of the lock. `silent`: the tree is to be killed, so that its connections end without a packet;
  // one that is stopped keeps its sockets. `name` is that of the lock that stays.
  Keepers(NetworkLockMethod wanted, const std::vector<Connection>&, bool silent, const std::string& name);
  // Without complete(): nothing happens.
  ~Keepers();
  Keepers(const Keepers&) = delete;
  Keepers& operator=(const Keepers&) = delete;

  NetworkLockMethod method() const { return method_; }
  // One more process, for these connections; a copy of each is in `sockets`.
  void add(std::span<const Met>, const std::vector<base::Fd>& sockets);
  // Locks all connections, once there are processes for the first of them.
  void engage();
  // The tables that iptables made for it.
  unsigned tables() const { return tables_; }

  // As long as this lives, one of the connections that were added last is being copied. The options are those that a
  // look into it changes.
  class Copying {
   public:
    Copying(Keepers&, std::size_t index, const images::sk_opts_entry&);
    ~Copying();
    Copying(const Copying&) = delete;
    Copying& operator=(const Copying&) = delete;

   private:
    Keepers& keepers_;
  };

  // From now on the tree is killed, or stopped, at any moment.
  void at_the_end();
  // It is gone, or stopped.
  void complete();

 private:
  struct Unmap {
    void operator()(Line*) const;
  };
  void hang_up(bool gone);

  NetworkLockMethod method_;
  unsigned tables_ = 0;
  std::vector<std::unique_ptr<Line, Unmap>> lines_;
};

}  // namespace criu::sockets
