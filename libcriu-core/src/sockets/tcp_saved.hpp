// SPDX-License-Identifier: LGPL-2.1-only
// TCP connections as images have them, and as libsoccr does.
#pragma once

#include <fdinfo.pb.h>
#include <tcp-stream.pb.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "sockets/network_lock.hpp"

struct soccr_saved;

namespace criu {

struct RestoreContext;

namespace sockets {

struct SavedFree {
  void operator()(soccr_saved* saved) const;
};
using Saved = std::unique_ptr<soccr_saved, SavedFree>;

// Whether an entry stands for a connection, whose state is in an image of its own.
bool is_connection(const images::inet_sk_entry&);
// Its ends.
Connection ends_of(const images::inet_sk_entry&);

// Dump: the record, which the bytes of both queues follow.
images::tcp_stream_entry stream_of(const soccr_saved&);

// All connections of a checkpoint, read and checked before anything is made of them.
class SavedConnections {
 public:
  SavedConnections() = default;
  explicit SavedConnections(const RestoreContext&);
  // nullptr: it is to come back closed.
  const soccr_saved* find(std::uint32_t file_id) const;
  std::vector<Connection> ends() const { return ends_; }

 private:
  std::unordered_map<std::uint32_t, Saved> saved_;
  std::vector<Connection> ends_;
};

}  // namespace sockets
}  // namespace criu
