// SPDX-License-Identifier: LGPL-2.1-only
// What only the peer can bring about: its FIN, and the acknowledgement of ours.
#pragma once

#include <cstdint>

#include "soccr/soccr.h"

namespace soccr {

struct Segment {
  std::uint32_t seq, ack;
  bool fin;
};

// Plays the peer: sends the segment from its address to the socket, over the loopback device, and returns when the
// socket has reached the state. Throws ETIMEDOUT when it does not.
void receive_segment(int fd, const soccr_fields& fields, const Segment& segment, unsigned state);

}  // namespace soccr
