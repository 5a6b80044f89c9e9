// SPDX-License-Identifier: LGPL-2.1-only
// What waits unread in UNIX sockets (sk-queues.img): data with its bounds, descriptors, credentials.
#pragma once

#include <fdinfo.pb.h>
#include <sk-packet.pb.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "image/directory.hpp"

namespace criu {

struct RestoreContext;

namespace files {
class Saver;
struct Description;
}  // namespace files

namespace sockets {

struct Packet {
  std::uint64_t offset = 0;  // of the bytes in the image
  std::uint32_t length = 0;
  std::vector<std::uint32_t> rights;  // ids of files
  std::optional<images::sk_credentials> sender;
  std::string from;  // name of the sending socket; empty: it had none, or is not recorded
};

class Queues {
 public:
  Queues() = default;
  explicit Queues(const image::Directory&);
  std::vector<const Packet*> of(const images::file_entry& socket) const;

 private:
  std::unordered_map<std::uint32_t, std::vector<Packet>> packets_;  // by file
};

// Saves what can be received from the socket, without consuming it, as the queue of file `id`.
void save_queue(files::Saver&, const files::Description&, std::uint32_t id, int type);

// Sends a packet of a queue: `address` as for sendmsg, empty for a connected socket.
void send_packet(const RestoreContext&, int fd, const Packet&, const std::string& address, const std::string& what);

}  // namespace sockets
}  // namespace criu
