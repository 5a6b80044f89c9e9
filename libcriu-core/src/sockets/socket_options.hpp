// SPDX-License-Identifier: LGPL-2.1-only
// The options that all sockets have, and those of any level that the format has no field for.
#pragma once

#include <sk-opts.pb.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "sockets/call.hpp"

namespace criu::sockets {

// Compares with what a fresh socket of that type has, so that only what somebody set is saved or set again.
class SocketOptions {
 public:
  void save(int fd, const SocketType&, images::sk_opts_entry&, const std::string& what);
  // Before the socket gets its name.
  void restore_early(int fd, const SocketType&, const images::sk_opts_entry&, const std::string& what);
  // What changes how data is received and sent: when the queues are full.
  void restore_late(int fd, const SocketType&, const images::sk_opts_entry&, const std::string& what);
  void restore_sizes(int fd, const SocketType&, const images::sk_opts_entry&, const std::string& what);

 private:
  struct Fresh {
    images::sk_opts_entry common;
    std::map<std::pair<int, int>, std::string> others;
  };
  const Fresh& fresh(const SocketType&);

  std::map<SocketType, Fresh> fresh_;
};

}  // namespace criu::sockets
