// SPDX-License-Identifier: GPL-2.0-only
// What was in a task's memory: its saved pages, and what lies below them in mapped files and shared objects.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "checkpoint.hpp"

namespace coredump {

// A file or object below a mapping, wherever its bytes are now. Beyond its end, and in its holes: zeros.
class Backing {
 public:
  virtual ~Backing() = default;
  // Copies what there is of [at, at + size) over the buffer.
  virtual void copy(std::uint64_t at, std::uint64_t size, char* to) const = 0;
};

class Contents {
 public:
  explicit Contents(const crit::Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  // Calls for pieces of [area.start, area.start + size), ascending; what is not in any of them is zero.
  using Piece = std::function<void(std::uint64_t address, std::string_view bytes)>;
  void each(const crit::pb::vma_entry& area, std::uint64_t size, const crit::Pages& pages, const Piece& piece);

 private:
  // Null: nothing but zeros.
  std::shared_ptr<Backing> backing_of(const crit::pb::vma_entry& area);
  std::shared_ptr<Backing> open_backing(const crit::pb::vma_entry& area);
  std::shared_ptr<Backing> open_file(std::uint32_t id) const;
  std::shared_ptr<Backing> shared_object(std::uint64_t shmid) const;

  const crit::Checkpoint& checkpoint_;
  std::map<std::uint64_t, std::shared_ptr<Backing>> files_, objects_;  // by file id, by shmid
};

}  // namespace coredump
