// SPDX-License-Identifier: LGPL-2.1-only
// Keeping connections silent while no task owns them: packets of both directions are dropped by a firewall.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "options.hpp"

namespace criu::sockets {

constexpr unsigned own_mark = 0xC114;  // of packets that a restore makes itself: no lock stops them

// The ends of a connection; addresses in network order, IPv4 ones (mapped ones too) in the first 4 bytes.
struct Connection {
  bool v6 = false;
  std::array<std::uint8_t, 16> local{}, peer{};
  std::uint16_t local_port = 0, peer_port = 0;
};

// Makes "any" the method that works here. None that does is an Error.
NetworkLockMethod choose_lock(NetworkLockMethod wanted);

// The name of the nftables table that outlives a dump: as CRIU 4.2 cuts it.
std::string lock_name(const std::string& run_id, pid_t root);

// The drops, for as long as this object or this process lives; or, where iptables makes them, who keeps it.
class NetworkLock {
 public:
  // Nothing is dropped yet.
  NetworkLock(NetworkLockMethod method, std::vector<Connection> connections);
  // Connections must be locked in one go.
  void engage();
  // Unlocks.
  ~NetworkLock();
  NetworkLock(const NetworkLock&) = delete;
  NetworkLock& operator=(const NetworkLock&) = delete;

  // From now on there is one that outlives this process, under that name; `owner` says what it belongs to.
  void leave(const std::string& name, const std::string& owner);
  // Another process has done so.
  void is_left();
  // In a process that was forked to outlive this one, before anything is dropped; and then, when this one has died,
  // however far it came, or has handed it over: in place of its destructor.
  void is_kept();
  void end_for_owner();
  // In who still lives: the other process is to end it.
  void hand_over();
  void take_back();  // it has failed
  // The tables that iptables made for it, to be given to remove_lock.
  unsigned tables() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Whether a dump left a lock of that name (or, for methods that name each, of these connections) here.
bool lock_exists(NetworkLockMethod method, const std::string& name, const std::vector<Connection>& connections);
// Removes what a dump left.
void remove_lock(NetworkLockMethod method, const std::string& name, const std::vector<Connection>& connections,
                 unsigned tables);

// What a lock belongs to: "tree PID START". Locks of trees that live and run are left over from dumps that were killed.
std::string lock_owner(pid_t root);
// `own` is one that is being dumped.
void remove_stale_locks(NetworkLockMethod method, pid_t own);

}  // namespace criu::sockets
