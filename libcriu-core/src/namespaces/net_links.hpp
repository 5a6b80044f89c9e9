// SPDX-License-Identifier: LGPL-2.1-only
// The links of a network namespace.
#pragma once

#include <netdev.pb.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "dump_context.hpp"
#include "kernel/netlink.hpp"
#include "restore_context.hpp"

namespace criu::namespaces {

// Of the namespace of the socket. What cannot be saved becomes an obstacle.
void save_links(DumpContext&, kernel::Netlink&, std::uint32_t ns_id);

// Removes those whose other ends are in other namespaces, and these with them.
void remove_crossing_links(kernel::Netlink&);

// The links of a new namespace, and the ends of theirs that are outside of it.
class RestoredLinks {
 public:
  // Reads what there is to make, and what --external says of it. `outside` is a socket of the namespace of who
  // restores.
  RestoredLinks(const RestoreContext&, std::uint32_t ns_id, kernel::Netlink& outside, int outer_ns);
  // In the new namespace, of which `inside` is a socket.
  void make(kernel::Netlink& inside, int inner_ns);
  // When all addresses are there.
  void settle();
  // Outer ends that are to be ports of a bridge become that.
  void connect();
  // Takes away again what is to be seen outside.
  void undo();

 private:
  // What --external says of a link.
  struct Outer {
    std::string name, bridge;
    unsigned bridge_index = 0;
  };
  void find_outside(const images::net_device_entry&);
  unsigned outer_index(const std::string& name, const std::string& wanted_for);
  void create(const images::net_device_entry&);
  void create_veth(const images::net_device_entry&);
  void create_bridge(const images::net_device_entry&);
  void create_macvlan(const images::net_device_entry&);
  void take(const images::net_device_entry&, const std::string& outer_name);
  void configure(const images::net_device_entry&);
  void raise(const images::net_device_entry&);
  const images::net_device_entry* find(unsigned index) const;

  const RestoreContext& context_;
  std::uint32_t ns_id_;
  kernel::Netlink& outside_;
  kernel::Netlink* inside_ = nullptr;
  int outer_ns_, inner_ns_ = -1;
  std::vector<images::net_device_entry> links_;
  std::map<std::string, Outer> veths_, macvlans_, moved_;  // by the name inside
  std::vector<unsigned> made_;                             // indices of those that have an end outside
  std::vector<std::pair<unsigned, std::string>> taken_;    // of those that came from there, with their names there
};

}  // namespace criu::namespaces
