// SPDX-License-Identifier: LGPL-2.1-only
// Those who keep connections for a dump (sockets/keepers), and the network lock. Outside of the tree's namespaces: the
// kernel ends all that lives in a pid namespace with its init, and among the mounts of a container there need not be
// the programs that make a lock.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "outside.hpp"
#include "sockets/network_lock.hpp"

namespace criu::sockets {

struct Line;

class Guard {
 public:
  // Of the connections of this tree, in that network namespace (-1: ours).
  explicit Guard(pid_t root, int network) : root_(root), network_(network) {}
  // Whoever is left sees for himself what has become of the tree; waits for that.
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  // One of the calls of Keepers.
  std::string serve(const outside::Request&);

 private:
  struct Unmap {
    void operator()(Line*) const;
  };
  struct Keeper {
    pid_t pid;
    std::unique_ptr<Line, Unmap> line;
  };
  struct Kept {
    int fd;
    std::string what;
  };
  std::string lock(const outside::Request&);
  void keep(const outside::Request&);
  [[noreturn]] void be_keeper(Line&, const std::vector<Kept>&);
  void fall_silent(const std::vector<Kept>&);
  bool await_keepers();  // whether all of them did what they are for

  pid_t root_;
  int network_;
  base::Fd tree_;  // its pidfd
  bool silent_ = false, complete_ = false;
  std::string name_, owner_;
  std::unique_ptr<NetworkLock> lock_;
  std::vector<base::Fd> low_;  // descriptors that are kept free: libnftables waits with select, which knows but 1024
  std::vector<Keeper> keepers_;
};

}  // namespace criu::sockets
