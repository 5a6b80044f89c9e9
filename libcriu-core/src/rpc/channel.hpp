// SPDX-License-Identifier: LGPL-2.1-only
// The socket between a client of the RPC and its worker: one message a packet.
#pragma once

#include <rpc.pb.h>
#include <sys/types.h>

#include <cstdint>

#include "base/fd.hpp"

namespace criu::rpc {

class Channel {
 public:
  explicit Channel(base::Fd socket);

  // Throws base::Error: ECONNRESET when the client is gone, EBADMSG when this is no message.
  images::criu_req receive();
  // `fd`: goes with it, unless it is -1.
  void send(const images::criu_resp&, int fd = -1);

  // Who is at the other end: whoever connected, or made the pair of sockets.
  pid_t peer() const { return peer_; }
  uid_t peer_user() const { return peer_user_; }
  // The number that the kernel's diagnostics know our end by.
  std::uint32_t inode() const;
  void close() { socket_.reset(); }

 private:
  base::Fd socket_;
  pid_t peer_ = 0;
  uid_t peer_user_ = 0;
};

}  // namespace criu::rpc
