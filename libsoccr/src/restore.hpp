// SPDX-License-Identifier: LGPL-2.1-only
// From a value to a socket.
#pragma once

#include "saved.hpp"

namespace soccr {

// A connection for a fresh socket, which is then in repair mode and mute. In SYN_SENT and LISTEN the socket is only
// made ready, and begin() does the rest.
void restore_connection(int fd, const soccr_saved& saved);

// Sends the SYN, or listens. The socket has left repair mode.
void begin(int fd, const soccr_fields& fields);

// Makes an unconnected socket of one in repair mode, without a packet.
void drop_connection(int fd);

}  // namespace soccr
