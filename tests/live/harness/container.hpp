// SPDX-License-Identifier: GPL-2.0-only
// Mounts and network as container engines make them: a root of its own, /proc partly read-only and partly hidden, /sys,
// a /dev on tmpfs, terminals, shared memory, message queues; and directories of the host in their place; and a veth on
// a bridge.
#pragma once

#include <string>
#include <vector>

#include "base/fd.hpp"

namespace live {

class Container {
 public:
  // The directories of the host that are to be seen in it.
  explicit Container(const std::vector<std::string>& directories);

  // Makes a network namespace for it. To be kept until the container lives in it.
  bool make_network();
  void let_go_of_network() { network_.reset(); }
  // Makes the mounts, in a new mount namespace, and enters the network. False, with errno, when that does not work.
  bool make() const;
  // In the network namespace that is to be outside: a bridge for the container.
  static bool make_bridge();
  // What a dump and a restore have to be told of them.
  std::vector<std::string> dump_options() const;
  std::vector<std::string> restore_options() const;

 private:
  std::vector<std::string> directories_;
  base::Fd network_;
};

}  // namespace live
