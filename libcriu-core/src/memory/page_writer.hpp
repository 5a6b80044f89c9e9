// SPDX-License-Identifier: LGPL-2.1-only
// Moves pages of a stopped task into a pages file.
//
// Two workers take pieces in turn: one reads from the task while the other writes to the file. A piece fits the cache,
// so the second copy costs little; pages of zeros are found while they are hot, and are not written where the bare
// mapping shows zeros anyway. Only a worker's piece is ever held in memory, whatever the size of the task; but pages so
// few that the outbox holds them are all read at once, and written when it says so.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/fd.hpp"
#include "image/outbox.hpp"

namespace criu::memory {

struct Source {
  std::uint64_t start, end;
  // Whether process_vm_readv will do. It does not read what is protected against reading, and it gives the task copies
  // of its own of pages that it shares with others until one of them writes; /proc/PID/mem, which is slower, does
  // neither.
  bool directly;
  bool drop_zeros;      // a missing page reads as zeros
  std::uint32_t flags;  // for the pagemap
};

struct Written {
  std::uint64_t start, pages;
  std::uint32_t flags;
};

class PageWriter {
 public:
  // `mem`: the task's /proc/PID/mem. `abandoned` is asked between pieces.
  PageWriter(pid_t pid, base::Fd mem, base::Fd file, image::Outbox* outbox = nullptr,
             std::function<bool()> abandoned = nullptr)
      : pid_(pid), mem_(std::move(mem)), file_(std::move(file)), outbox_(outbox), abandoned_(std::move(abandoned)) {}

  // Writes all pages of the sources, which ascend. Returns what the pagemap is to say. To be called once.
  std::vector<Written> write(const std::vector<Source>& sources);
  std::uint64_t bytes() const { return bytes_; }

 private:
  pid_t pid_;
  base::Fd mem_, file_;
  image::Outbox* outbox_;
  std::function<bool()> abandoned_;
  std::uint64_t bytes_ = 0;
};

}  // namespace criu::memory
