// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/network_lock.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "base/error.hpp"
#include "kernel/procfs.hpp"
#include "log.hpp"
#include "sockets/iptables.hpp"
#include "sockets/nft.hpp"

namespace criu::sockets {

using base::Error;

namespace {

std::string text_of(const Connection& connection, const std::array<std::uint8_t, 16>& address) {
  char text[INET6_ADDRSTRLEN]{};
  ::inet_ntop(connection.v6 ? AF_INET6 : AF_INET, address.data(), text, sizeof text);
  return text;
}

// ---- nftables -------------------------------------------------------------------------------------------------------

// A table that drops what the connections receive and send.
std::string table_commands(const std::string& name, const std::string& about,
                           const std::vector<Connection>& connections) {
  std::string out = fmt::format("add table inet {} {{ {}; }}\n", name, about);
  out.reserve(connections.size() * 128 + 2048);
  for (const char* family : {"4", "6"}) {
    out +=
        fmt::format("add set inet {0} conns{1} {{ type ipv{1}_addr . inet_service . ipv{1}_addr . inet_service; }}\n",
                    name, family);
  }
  for (const char* hook : {"output", "input"}) {
    out += fmt::format("add chain inet {0} {1} {{ type filter hook {1} priority 0; }}\n", name, hook);
    out += fmt::format("add rule inet {} {} meta mark {:#x} accept\n", name, hook, own_mark);
    out += fmt::format("add rule inet {} {} ip saddr . tcp sport . ip daddr . tcp dport @conns4 drop\n", name, hook);
    out += fmt::format("add rule inet {} {} ip6 saddr . tcp sport . ip6 daddr . tcp dport @conns6 drop\n", name, hook);
  }
  for (const bool v6 : {false, true}) {
    std::vector<std::string> elements;
    for (const auto& one : connections) {
      if (one.v6 == v6) {
        const auto local = fmt::format("{} . {}", text_of(one, one.local), one.local_port);
        const auto peer = fmt::format("{} . {}", text_of(one, one.peer), one.peer_port);
        elements.push_back(fmt::format("{} . {}", peer, local));
        elements.push_back(fmt::format("{} . {}", local, peer));
      }
    }
    // A connection whose ends are both in the tree is there twice.
    std::sort(elements.begin(), elements.end());
    elements.erase(std::unique(elements.begin(), elements.end()), elements.end());
    if (!elements.empty()) {
      out += fmt::format("add element inet {} conns{} {{ {} }}\n", name, v6 ? 6 : 4, fmt::join(elements, ", "));
    }
  }
  return out;
}

}  // namespace

NetworkLockMethod choose_lock(NetworkLockMethod wanted) {
  if (wanted != NetworkLockMethod::any) {
    return wanted;
  }
  try {
    Nft().run("list tables inet", "ask nftables");
    return NetworkLockMethod::nftables;
  } catch (const Error& error) {
    if (iptables::works()) {
      LOG_INFO("{}", error.what());
      return NetworkLockMethod::iptables;
    }
    throw Error("lock the network", error.object(), 0,
                "neither nftables nor iptables works here; --network-lock skip does without, if nothing can reach this "
                "machine meanwhile");
  }
}

// CRIU keeps "inet " and the name in 32 bytes.
std::string lock_name(const std::string& run_id, pid_t root) {
  constexpr std::size_t kept = 21;
  return "CRIU-" + (run_id.empty() ? std::to_string(root) : run_id.substr(0, kept));
}

struct NetworkLock::Impl {
  NetworkLockMethod method;
  std::vector<Connection> connections;
  std::string name;
  std::unique_ptr<Nft> nft{};            // whose socket owns the table: it goes with this process, however that ends
  std::unique_ptr<iptables::Use> use{};  // or what iptables does for us
  bool engaged = false, left = false;
};

namespace {

// Of this process alone: others in other pid namespaces may have its pid, in the same network. iptables takes 28 bytes.
std::string own_name() {
  struct stat pids {};
  base::check(::stat("/proc/self/ns/pid", &pids), "look at the own pid namespace");
  return fmt::format("CRIU-for-{}-{}", ::getpid(), pids.st_ino);
}

}  // namespace

NetworkLock::NetworkLock(NetworkLockMethod method, std::vector<Connection> connections)
    : impl_(new Impl{method, std::move(connections), own_name()}) {
  if (method == NetworkLockMethod::nftables) {
    impl_->nft = std::make_unique<Nft>();
  } else if (method == NetworkLockMethod::iptables) {
    impl_->use = std::make_unique<iptables::Use>(impl_->name);
  }
}

void NetworkLock::engage() {
  if (impl_->nft != nullptr) {
    impl_->nft->run(table_commands(impl_->name, "flags owner", impl_->connections), "lock the network");
  } else if (impl_->use != nullptr) {
    impl_->use->lock(impl_->connections);
  }
  impl_->engaged = true;
}

NetworkLock::~NetworkLock() {
  if (impl_->engaged && impl_->nft != nullptr) {
    try {
      impl_->nft->run("delete table inet " + impl_->name, "unlock the network");
    } catch (const Error& error) {
      LOG_WARN("{}", error.what());  // it goes with this process
    }
  } else if (impl_->engaged && impl_->use != nullptr) {
    impl_->use->unlock(impl_->connections, impl_->left);
  }
}

void NetworkLock::is_kept() {
  if (impl_->use != nullptr) {
    impl_->use->is_kept();
  }
}

void NetworkLock::end_for_owner() {
  if (impl_->use != nullptr) {
    impl_->use->await_owner();
    impl_->use->unlock(impl_->connections, impl_->left);
  }
}

void NetworkLock::hand_over() {
  if (impl_->use != nullptr) {
    impl_->use->is_kept();
    impl_->engaged = false;
  }
}

void NetworkLock::take_back() { impl_->engaged = true; }

unsigned NetworkLock::tables() const { return impl_->use != nullptr ? impl_->use->tables() : 0; }

void NetworkLock::leave(const std::string& name, const std::string& owner) {
  if (impl_->method == NetworkLockMethod::nftables) {
    Nft().run(table_commands(name, fmt::format("comment \"{}\"", owner), impl_->connections), "lock the network");
  } else if (impl_->method == NetworkLockMethod::iptables) {
    iptables::add_rules(impl_->connections);
  }
  impl_->left = true;
}

void NetworkLock::is_left() { impl_->left = true; }

bool lock_exists(NetworkLockMethod method, const std::string& name, const std::vector<Connection>& connections) {
  if (method == NetworkLockMethod::iptables) {
    return iptables::has_rules(connections.front());
  }
  const auto tables = Nft().run("list tables inet", "look for the network lock");
  return tables.find("table inet " + name + "\n") != std::string::npos;
}

void remove_lock(NetworkLockMethod method, const std::string& name, const std::vector<Connection>& connections,
                 unsigned tables) {
  if (method == NetworkLockMethod::nftables) {
    Nft().run("delete table inet " + name, "unlock the network");
  } else if (method == NetworkLockMethod::iptables) {
    iptables::remove_rules(connections);
    iptables::remove_tables(tables);
  }
}

std::string lock_owner(pid_t root) {
  const auto stat = procfs::parse_stat(procfs::Task(root).read("stat"));
  return fmt::format("tree {} {}", root, stat.start_time);
}

namespace {

// Whether the tree that a lock belongs to goes on without it being taken away: only a dump that was killed leaves it
// so.
bool is_stale(const std::string& table, pid_t own) {
  int root = 0;
  unsigned long long start = 0;
  const auto at = table.find("comment \"tree ");
  if (at == std::string::npos || std::sscanf(table.c_str() + at, "comment \"tree %d %llu\"", &root, &start) != 2) {
    return false;
  }
  try {
    const auto stat = procfs::parse_stat(procfs::Task(root).read("stat"));
    // Stopped trees are meant to be silent, traced ones are being dumped right now.
    return stat.start_time == start && stat.state != 'Z' && (root == own || (stat.state != 'T' && stat.state != 't'));
  } catch (const Error&) {
    return false;  // gone: the lock waits for its restore
  }
}

}  // namespace

void remove_stale_locks(NetworkLockMethod method, pid_t own) {
  if (method == NetworkLockMethod::iptables) {
    iptables::remove_stale();
  }
  if (method != NetworkLockMethod::nftables) {
    return;
  }
  Nft nft;
  std::istringstream lines(nft.run("list tables inet", "look for network locks"));
  for (std::string word, family, name; lines >> word >> family >> name;) {
    if (name.starts_with("CRIU-") && !name.starts_with("CRIU-for-") &&
        is_stale(nft.run("list table inet " + name, "look at a network lock"), own)) {
      LOG_WARN("the network lock {} is left over from a dump that was killed; it is removed", name);
      nft.run("delete table inet " + name, "remove a network lock");
    }
  }
}

}  // namespace criu::sockets
