// SPDX-License-Identifier: LGPL-2.1-only
// Which requests of an io_uring are in flight. The kernel does not list them: it is concluded from what is left of them
// in the memory of the ring, and checked against what the kernel counts.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "files/ring_memory.hpp"

namespace criu::files {

// What fdinfo tells of a ring.
struct RingInfo {
  std::uint32_t sq_entries = 0, cq_entries = 0;
  std::uint32_t sq_head = 0, cq_tail = 0;  // the kernel's own counts
  std::int64_t sq_thread = -1;
  std::vector<std::pair<std::uint32_t, std::string>> files;  // slot and path
  std::uint32_t file_slots = 0;
  struct Buffer {
    std::uint32_t slot;
    std::uint64_t address, length;
  };
  std::vector<Buffer> buffers;
  std::uint32_t buffer_slots = 0;
  std::map<unsigned, unsigned> waiting;  // how many requests of each opcode wait for a file to be ready
  std::vector<Completion> kept;          // completions that found no room
  bool complete = false;                 // not while the ring is in use
};
RingInfo parse_ring_info(const std::string& text);

struct InFlight {
  std::vector<std::vector<std::byte>> requests;  // submission entries, in the order of their submission
  bool certain = false;                          // all of them are known
  // What can neither be made again nor be known; its opcode. It may end by itself.
  bool has_other = false;
  unsigned other = 0;
};
InFlight requests_in_flight(RingMemory&, const RingInfo&);

}  // namespace criu::files
