// SPDX-License-Identifier: LGPL-2.1-only
// The memory that an io_uring shares with its user, of any process's ring that this process has a descriptor of.
#pragma once

#include <linux/io_uring.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"

namespace criu::files {

// What the headers of Debian 12 lack.
inline constexpr std::uint32_t setup_no_mmap = 1U << 14;     // IORING_SETUP_NO_MMAP, 6.5
inline constexpr std::uint32_t setup_no_sqarray = 1U << 16;  // IORING_SETUP_NO_SQARRAY, 6.6

// Makes a ring; `params` has its flags, and gets the layout of its memory.
base::Fd make_ring(std::uint32_t entries, io_uring_params& params, const std::string& what);
// io_uring_enter(2); a negative errno.
int enter_ring(int fd, std::uint32_t submit, std::uint32_t flags);

class RingMemory {
 public:
  // By the layout that the kernel gave for a ring of this size and these flags.
  RingMemory(int fd, const io_uring_params& params, const std::string& what);

  std::uint32_t& sq_head() { return word(params_.sq_off.head); }
  std::uint32_t& sq_tail() { return word(params_.sq_off.tail); }
  std::uint32_t& sq_flags() { return word(params_.sq_off.flags); }
  std::uint32_t& sq_dropped() { return word(params_.sq_off.dropped); }
  std::uint32_t& cq_head() { return word(params_.cq_off.head); }
  std::uint32_t& cq_tail() { return word(params_.cq_off.tail); }
  std::uint32_t& cq_flags() { return word(params_.cq_off.flags); }
  std::uint32_t& cq_overflow() { return word(params_.cq_off.overflow); }

  bool has_array() const { return (params_.flags & setup_no_sqarray) == 0; }
  // The entry that a position of the submission queue means; beyond the end when the array says nonsense.
  std::uint32_t index_at(std::uint32_t position) {
    const auto slot = position & (params_.sq_entries - 1);
    return has_array() ? array()[slot] : slot;
  }
  std::size_t entry_size() const { return (params_.flags & IORING_SETUP_SQE128) != 0 ? 128 : 64; }
  std::size_t completion_size() const { return (params_.flags & IORING_SETUP_CQE32) != 0 ? 32 : 16; }
  std::span<std::byte> entry(std::uint32_t index) { return {entries_.data() + index * entry_size(), entry_size()}; }
  std::span<std::byte> entries() { return {entries_.data(), params_.sq_entries * entry_size()}; }
  std::span<std::byte> completions() {
    return {rings_.data() + params_.cq_off.cqes, params_.cq_entries * completion_size()};
  }
  const io_uring_cqe& completion_at(std::uint32_t position) {
    const auto slot = position & (params_.cq_entries - 1);
    return *reinterpret_cast<const io_uring_cqe*>(completions().data() + slot * completion_size());
  }
  std::span<std::uint32_t> array() {
    return {reinterpret_cast<std::uint32_t*>(rings_.data() + params_.sq_off.array),
            has_array() ? params_.sq_entries : 0};
  }
  const io_uring_params& params() const { return params_; }

 private:
  std::uint32_t& word(std::uint32_t offset) { return *reinterpret_cast<std::uint32_t*>(rings_.data() + offset); }

  io_uring_params params_;
  base::Mapping rings_, entries_;
};

// Brings a fresh ring's counters to these, by requests that do nothing: the kernel keeps counts of its own, which
// nobody can set.
void advance_ring(int fd, RingMemory& ring, std::uint32_t sq_head, std::uint32_t cq_tail, const std::string& what);

// Puts completions into a ring as if requests had ended; where they find no room the kernel keeps them aside.
struct Completion {
  std::uint64_t user_data;
  std::int32_t result;
  std::uint32_t flags;
};
void post_completions(int fd, std::span<const Completion> completions, const std::string& what);

}  // namespace criu::files
