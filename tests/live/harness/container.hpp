// SPDX-License-Identifier: GPL-2.0-only
// Mounts and network as container engines make them: a root of its own, /proc partly read-only and partly hidden, /sys,
// a /dev on tmpfs, terminals, shared memory, message queues; and directories of the host in their place; and a veth on
// a bridge. All of it may belong to a user namespace, whose root is nobody outside.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "live.hpp"

namespace live {

class Container {
 public:
  // The directories of the host that are to be seen in it.
  // Null: no users of its own.
  Container(const std::vector<std::string>& directories, const Users* users);

  // The namespaces to start it in.
  unsigned long namespaces() const;
  // What has to be there before it is started, and can go afterwards.
  bool prepare();
  void let_go();
  // Makes the mounts, in a new mount namespace, and enters the network. False, with errno, when that does not work.
  // Meanwhile the process that started it has to attend to it.
  bool make() const;
  bool attend(pid_t container) const;
  // In the network namespace that is to be outside: a bridge for the container.
  static bool make_bridge();
  // Among the mounts outside: what is bound from /dev has flags that the kernel locks for other users.
  static bool restrict_dev();
  // What a dump and a restore have to be told of them.
  std::vector<std::string> dump_options() const;
  std::vector<std::string> restore_options() const;

 private:
  bool make_network();
  bool set_groups() const;
  bool make_users(pid_t container) const;
  bool begin() const;
  bool become_root() const;
  bool make_dev(const std::vector<base::Fd>& devices) const;

  std::vector<std::string> directories_;
  const Users* users_;
  base::Fd root_;             // without what is mounted below it
  base::Fd network_;          // made before; in a user namespace it has to be made there
  base::Fd inside_, beside_;  // a line between the container and who started it
};

}  // namespace live
