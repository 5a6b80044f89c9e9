// SPDX-License-Identifier: GPL-2.0-only
// Mounts as container engines make them: a root of its own, /proc partly read-only and partly hidden, /sys, a /dev on
// tmpfs, terminals, shared memory, message queues; and directories of the host in their place.
#pragma once

#include <string>
#include <vector>

namespace live {

class Container {
 public:
  // The directories of the host that are to be seen in it.
  explicit Container(const std::vector<std::string>& directories);

  // Makes the mounts, in a new mount namespace. False, with errno, when that does not work.
  bool make() const;
  // What a dump and a restore have to be told of them.
  std::vector<std::string> dump_options() const;
  std::vector<std::string> restore_options() const;

 private:
  std::vector<std::string> directories_;
};

}  // namespace live
