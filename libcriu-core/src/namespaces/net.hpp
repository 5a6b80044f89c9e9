// SPDX-License-Identifier: LGPL-2.1-only
// The network namespace of a tree: links, tables, sysctls, firewall.
#pragma once

#include <memory>
#include <optional>

#include "base/fd.hpp"
#include "dump_context.hpp"
#include "kernel/netlink.hpp"
#include "namespaces/home.hpp"
#include "namespaces/net_links.hpp"

namespace criu::namespaces {

// Inside it. What is in the way becomes an obstacle.
void save_net(DumpContext&, const Home&);

// When the tree is gone for good and nobody else is in its namespace, so that this would end: the links of that which
// are seen outside go at once, before its firewall does, and before somebody makes them anew.
void bury_net(const Home&);

class RestoredNet {
 public:
  // Outside.
  RestoredNet(const RestoreContext&, std::uint32_t ns_id);
  // If the restore has failed, what it made outside goes.
  ~RestoredNet();
  RestoredNet(const RestoredNet&) = delete;
  RestoredNet& operator=(const RestoredNet&) = delete;

  // One that exists already; -1: it is to be made.
  int given() const { return given_; }
  // Inside the new one.
  void make();
  // When there are sockets: the bridges outside get their ports.
  void connect();
  // The last before the tasks run, inside, but among our own mounts: what the firewall stops would be in our way, too.
  void arm();
  // The restore can no longer fail.
  void keep() { links_.reset(); }

 private:
  const RestoreContext& context_;
  std::uint32_t ns_id_;
  images::netns_entry entry_;
  int given_ = -1;
  base::Fd joined_, outer_, inner_;
  kernel::Netlink outside_;
  std::optional<kernel::Netlink> inside_;
  std::optional<RestoredLinks> links_;  // none where they are not ours to make
};

// While it lives this thread is in that network namespace; -1: where it is.
class InsideNet {
 public:
  explicit InsideNet(int ns);
  ~InsideNet();
  InsideNet(const InsideNet&) = delete;
  InsideNet& operator=(const InsideNet&) = delete;

 private:
  base::Fd before_;
};

}  // namespace criu::namespaces
