// SPDX-License-Identifier: LGPL-2.1-only
// What waits unread in pipes and FIFOs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "image/directory.hpp"

namespace criu {

struct RestoreContext;

namespace files {

class Saver;

// The contents of one pipe, still in its image.
struct Queue {
  int fd;                // the image, owned by Queues
  std::uint64_t offset;  // of the bytes in it
  std::uint32_t bytes;
  std::uint32_t size;                  // capacity; 0: the kernel's usual one
  std::vector<std::uint32_t> packets;  // sizes of packets; empty: a stream
};

// All queues of one image (pipes-data or fifo-data), by pipe id.
class Queues {
 public:
  Queues() = default;
  Queues(const RestoreContext&, const image::Type&);
  // nullptr: nothing is recorded of this pipe.
  const Queue* find(std::uint32_t pipe_id) const;

 private:
  base::Fd fd_;
  std::map<std::uint32_t, Queue> queues_;
};

// Gives the empty pipe behind `writer` its size and contents; `what` names it in messages.
void fill_queue(int writer, const Queue&, const std::string& what);

// Saves what can be read from `reader`, without consuming it, as the queue of this pipe; once for each pipe.
void save_queue(Saver&, const image::Type&, int reader, std::uint32_t pipe_id, const std::string& what);

}  // namespace files
}  // namespace criu
