// SPDX-License-Identifier: LGPL-2.1-only
// The rules of a network lock where iptables is to make them.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "sockets/network_lock.hpp"

namespace criu::sockets::iptables {

bool works();

// Which of the tables that iptables keeps in nftables are not there yet, and come with its first rule.
enum Table : unsigned { ip_filter = 1, ip6_filter = 2 };
unsigned missing_tables();
// Removes those of them that hold nothing.
void remove_tables(unsigned tables);

// The drops in a chain of their own, for as long as this process has to do with them.
class Use {
 public:
  explicit Use(std::string chain);
  // What is there already is all there is when it throws.
  void lock(const std::vector<Connection>&);
  // `stay`: others of our drops still need the tables.
  void unlock(const std::vector<Connection>&, bool stay);
  // The tables that came with it.
  unsigned tables() const { return tables_; }

  // In a process that is to unlock when this one has died: what it had begun must have its end first.
  void is_kept() { alive_.reset(); }
  void await_owner() const;

 private:
  std::string chain_;
  unsigned tables_ = 0;
  base::Fd ended_, alive_;  // a pipe: its writing end is with us and the programs that we run
};

// All rules in the tables that iptables had before nftables, of the namespace of the caller; empty when there are none.
std::string save_legacy(bool v6);
void restore_legacy(bool v6, const std::string& rules);

// Those of processes that are gone.
void remove_stale();

// The drops that stay, rule by rule as CRIU 4.2 makes them.
void add_rules(const std::vector<Connection>&);
void remove_rules(const std::vector<Connection>&);
bool has_rules(const Connection&);
// What CRIU 4.2 drops all packets of a whole network namespace with, and saves with it.
void remove_namespace_lock(bool v6);

}  // namespace criu::sockets::iptables
