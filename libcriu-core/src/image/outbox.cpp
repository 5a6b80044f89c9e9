// SPDX-License-Identifier: LGPL-2.1-only
#include "image/outbox.hpp"

#include <utility>

#include "memory/buffer.hpp"

namespace criu::image {

namespace {

constexpr std::size_t most_held = 8 << 20;
// Waking the worker costs about what it takes to write a few small files.
constexpr std::size_t batch_writes = 16;
constexpr std::size_t batch_bytes = 256 << 10;
// To create a file takes as long as to write so much.
constexpr std::size_t weight_of_file = 32 << 10;
// A few hundred pages are what a small program has touched.
constexpr std::size_t prepared = 2 << 20;

}  // namespace

void Outbox::prepare() {
  if (hold_) {
    room_ = memory::map_buffer(prepared);
    *room_.data() = std::byte{};
  }
}

base::Mapping Outbox::room(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  return room_ && bytes <= room_.size() ? std::move(room_) : memory::map_buffer(bytes);
}

void Outbox::put(Write write, std::size_t bytes) {
  std::unique_lock lock(mutex_);
  writes_.push_back(std::move(write));
  bytes_ += bytes;
  overflown_ = overflown_ || bytes_ > most_held;
  if ((!hold_ || overflown_) && (writes_.size() >= batch_writes || bytes_ >= batch_bytes)) {
    post(std::move(lock));
  }
}

bool Outbox::would_hold(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  return hold_ && !overflown_ && bytes_ + bytes <= most_held;
}

void Outbox::flush() {
  std::unique_lock lock(mutex_);
  if (!writes_.empty()) {
    post(std::move(lock));
  }
}

// Not under the mutex: the worker may let one wait, and its job may want the mutex.
void Outbox::post(std::unique_lock<std::mutex> lock) {
  const auto weight = std::exchange(bytes_, 0) + weight_of_file * writes_.size();
  auto writes = std::exchange(writes_, {});
  lock.unlock();
  worker_.post(
      [writes = std::move(writes)]() mutable {
        for (auto& write : writes) {
          write();
          write = nullptr;
        }
      },
      weight);
}

}  // namespace criu::image
