// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/network_lock.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "kernel/procfs.hpp"
#include "log.hpp"
#include "sockets/nft.hpp"

extern char** environ;

namespace criu::sockets {

using base::check;
using base::Error;

namespace {

constexpr unsigned criu_mark = 0xC114;  // of packets that a restore makes itself

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
    out += fmt::format("add rule inet {} {} meta mark {:#x} accept\n", name, hook, criu_mark);
    out += fmt::format("add rule inet {} {} ip saddr . tcp sport . ip daddr . tcp dport @conns4 drop\n", name, hook);
    out += fmt::format("add rule inet {} {} ip6 saddr . tcp sport . ip6 daddr . tcp dport @conns6 drop\n", name, hook);
  }
  for (const bool v6 : {false, true}) {
    std::vector<std::string> elements;
    for (const auto& one : connections) {
      if (one.v6 == v6) {
        const auto local = fmt::format("{} . {}", text_of(one, one.local), one.local_port);
        const auto peer = fmt::format("{} . {}", text_of(one, one.peer), one.peer_port);
        elements.push_back(peer + " . " + local);
        elements.push_back(local + " . " + peer);
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

// ---- iptables -------------------------------------------------------------------------------------------------------

// Runs a program with this text as its input. 127: it is not there.
int run_with_input(const std::vector<std::string>& arguments, const std::string& input) {
  int ends[2];
  check(::pipe2(ends, O_CLOEXEC), "make a pipe for", arguments.front());
  base::Fd reader(ends[0]), writer(ends[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, reader.get(), STDIN_FILENO);
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    ::posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_WRONLY, 0);
  }
  std::vector<char*> argv;
  for (const auto& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    return 127;
  }
  reader.reset();
  sigset_t pipe, before;
  ::sigemptyset(&pipe);
  ::sigaddset(&pipe, SIGPIPE);
  ::pthread_sigmask(SIG_BLOCK, &pipe, &before);
  for (std::size_t done = 0; done < input.size();) {
    const auto part = ::write(writer.get(), input.data() + done, input.size() - done);
    if (part <= 0) {
      break;  // it ended early; its status says more
    }
    done += static_cast<std::size_t>(part);
  }
  writer.reset();
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  constexpr timespec now{0, 0};
  while (::sigtimedwait(&pipe, nullptr, &now) > 0) {
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

std::string iptables_rules(const std::vector<Connection>& connections, bool v6, char action) {
  std::vector<std::string> rules;
  for (const auto& one : connections) {
    if (one.v6 == v6) {
      const auto local = text_of(one, one.local), peer = text_of(one, one.peer);
      const auto rule = [&](const char* chain, const std::string& from, int sport, const std::string& to, int dport) {
        rules.push_back(fmt::format("-{} {} -p tcp -s {} --sport {} -d {} --dport {} -m mark ! --mark {:#x} -j DROP\n",
                                    action, chain, from, sport, to, dport, criu_mark));
      };
      rule("INPUT", peer, one.peer_port, local, one.local_port);
      rule("OUTPUT", local, one.local_port, peer, one.peer_port);
    }
  }
  return rules.empty() ? std::string() : fmt::format("*filter\n{}COMMIT\n", fmt::join(rules, ""));
}

// Both families; one that has no connections is not touched. The status of the first that failed.
int run_iptables(const std::vector<Connection>& connections, char action) {
  for (const bool v6 : {false, true}) {
    if (const auto rules = iptables_rules(connections, v6, action); !rules.empty()) {
      if (const int status = run_with_input({v6 ? "ip6tables-restore" : "iptables-restore", "-w", "--noflush"}, rules);
          status != 0) {
        return status;
      }
    }
  }
  return 0;
}

bool iptables_works() { return run_with_input({"iptables-restore", "-w", "--noflush"}, "*filter\nCOMMIT\n") == 0; }

constexpr const char* no_iptables = "is iptables-restore installed? --network-lock nftables or skip does without it";

}  // namespace

NetworkLockMethod choose_lock(NetworkLockMethod wanted) {
  if (wanted != NetworkLockMethod::any) {
    return wanted;
  }
  try {
    Nft().run("list tables inet", "ask nftables");
    return NetworkLockMethod::nftables;
  } catch (const Error& error) {
    if (iptables_works()) {
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
  std::unique_ptr<Nft> nft;  // whose socket owns the table: it goes with this process, however that ends
  std::string table;
  bool left = false;
};

NetworkLock::NetworkLock(NetworkLockMethod method, std::vector<Connection> connections)
    : impl_(new Impl{method, std::move(connections), {}, {}, false}) {
  if (method == NetworkLockMethod::nftables) {
    impl_->nft = std::make_unique<Nft>();
    impl_->table = fmt::format("CRIU-for-{}", ::getpid());
    impl_->nft->run(table_commands(impl_->table, "flags owner", impl_->connections), "lock the network");
  } else if (method == NetworkLockMethod::iptables) {
    if (run_iptables(impl_->connections, 'I') != 0) {
      run_iptables(impl_->connections, 'D');
      throw Error("lock the network", "iptables", 0, no_iptables);
    }
  }
}

NetworkLock::~NetworkLock() {
  if (impl_->method == NetworkLockMethod::nftables) {
    try {
      impl_->nft->run("delete table inet " + impl_->table, "unlock the network");
    } catch (const Error& error) {
      LOG_WARN("{}", error.what());  // it goes with this process
    }
  } else if (impl_->method == NetworkLockMethod::iptables && !impl_->left &&
             run_iptables(impl_->connections, 'D') != 0) {
    LOG_ERROR("the network lock cannot be removed: iptables failed");
  }
}

void NetworkLock::leave(const std::string& name, const std::string& owner) {
  if (impl_->method == NetworkLockMethod::nftables) {
    Nft().run(table_commands(name, fmt::format("comment \"{}\"", owner), impl_->connections), "lock the network");
  }
  impl_->left = true;
}

bool lock_exists(NetworkLockMethod method, const std::string& name) {
  if (method != NetworkLockMethod::nftables) {
    return method == NetworkLockMethod::iptables;
  }
  const auto tables = Nft().run("list tables inet", "look for the network lock");
  return tables.find("table inet " + name + "\n") != std::string::npos;
}

void remove_lock(NetworkLockMethod method, const std::string& name, const std::vector<Connection>& connections) {
  if (method == NetworkLockMethod::nftables) {
    Nft().run("delete table inet " + name, "unlock the network");
  } else if (method == NetworkLockMethod::iptables && run_iptables(connections, 'D') != 0) {
    // One of them is missing: those that are there have to go all the same.
    for (const auto& connection : connections) {
      run_iptables({connection}, 'D');
    }
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
