// SPDX-License-Identifier: LGPL-2.1-only
// Files of a checkpoint that are complete in memory, on their way to the disk: written by the worker, and where the
// tree is to go on, not before it does.
#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <vector>

#include "base/fd.hpp"
#include "worker.hpp"

namespace criu::image {

class Outbox {
 public:
  using Write = std::function<void()>;

  // `hold`: keep writes back until `flush`, as long as they fit into a few MiB.
  Outbox(Worker& worker, bool hold) : worker_(worker), hold_(hold) {}
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;

  // Makes room for what will be held, before anybody waits for it.
  void prepare();
  // Memory of at least that size, not cleared; for the caller to keep until it is written.
  base::Mapping room(std::size_t bytes);
  // Takes a write that holds so many bytes until it is done. From any thread.
  void put(Write write, std::size_t bytes);
  // Whether so many bytes would be kept back.
  bool would_hold(std::size_t bytes);
  // Hands all to the worker.
  void flush();

 private:
  void post(std::unique_lock<std::mutex> lock);

  Worker& worker_;
  const bool hold_;
  std::mutex mutex_;
  std::vector<Write> writes_;
  std::size_t bytes_ = 0;
  bool overflown_ = false;
  base::Mapping room_;
};

}  // namespace criu::image
