// SPDX-License-Identifier: LGPL-2.1-only
// What restored files need besides their entries, read and made in the master before the first task.
#pragma once

#include "files/bpf_map.hpp"
#include "files/inherited_fds.hpp"
#include "files/locks.hpp"
#include "files/queues.hpp"
#include "files/removed.hpp"
#include "files/terminals.hpp"
#include "kernel/mounts.hpp"
#include "sockets/names.hpp"
#include "sockets/socket_options.hpp"
#include "sockets/tcp_saved.hpp"

namespace criu::files {

struct Objects {
  Queues pipe_queues;
  Queues fifo_queues;
  Remaps remaps;
  Locks locks;
  BpfMaps bpf_maps;
  // The mounts of this process, once something is looked for on them.
  std::unique_ptr<kernel::Mounts> mounts;
  InheritedFds inherited;
  Terminals terminals;
  base::Fd socket_queues;  // the image
  sockets::Names socket_names;
  sockets::SocketOptions socket_options;
  sockets::SavedConnections tcp;
  // Connections that only a queue holds: made by the master, which could not get at them at the end.
  std::map<std::uint32_t, base::Fd> carried;
  // Of internet sockets: how many have this protocol and port.
  std::map<std::pair<std::uint32_t, std::uint32_t>, unsigned> inet_ports;
  // The other end of sockets whose peer is gone, until their queues are full; in the task that made them.
  std::map<std::uint32_t, base::Fd> lost_peers;
};

// Reads the images of queues and removed files; what the tasks will open is made here.
void prepare(RestoreContext&);

}  // namespace criu::files
