// SPDX-License-Identifier: LGPL-2.1-only
// What restored files need besides their entries, read and made in the master before the first task.
#pragma once

#include "files/queues.hpp"
#include "files/removed.hpp"
#include "sockets/names.hpp"
#include "sockets/socket_options.hpp"
#include "sockets/tcp_saved.hpp"

namespace criu::files {

struct Objects {
  Queues pipe_queues;
  Queues fifo_queues;
  Remaps remaps;
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
