// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/iptables.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <sstream>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "kernel/procfs.hpp"
#include "log.hpp"
#include "sockets/nft.hpp"

extern char** environ;

namespace criu::sockets::iptables {

using base::check;
using base::Error;

namespace {

constexpr const char* chain_prefix = "CRIU-for-";
constexpr const char* not_there = "is iptables-restore installed? --network-lock nftables or skip does without it";

// ---- running the programs -------------------------------------------------------------------------------------------

struct Pipe {
  base::Fd reader, writer;
  explicit Pipe(const std::string& program) {
    int ends[2];
    check(::pipe2(ends, O_CLOEXEC), "make a pipe for", program);
    reader.reset(ends[0]);
    writer.reset(ends[1]);
  }
};

// A signal that is not to end this process, for as long as the scope lasts.
class PipeSignal {
 public:
  PipeSignal() {
    ::sigemptyset(&pipe_);
    ::sigaddset(&pipe_, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
  }
  ~PipeSignal() {
    constexpr timespec now{0, 0};
    while (::sigtimedwait(&pipe_, nullptr, &now) > 0) {
    }
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  PipeSignal(const PipeSignal&) = delete;
  PipeSignal& operator=(const PipeSignal&) = delete;

 private:
  sigset_t pipe_{}, before_{};
};

void write_all(int fd, const std::string& text) {
  const PipeSignal ignored;
  for (std::size_t done = 0; done < text.size();) {
    const auto part = ::write(fd, text.data() + done, text.size() - done);
    if (part <= 0) {
      return;  // it ended early; its status says more
    }
    done += static_cast<std::size_t>(part);
  }
}

std::string read_all(int fd) {
  std::string text;
  std::array<char, 4096> room{};
  for (ssize_t got = 0; (got = ::read(fd, room.data(), room.size())) > 0 || (got < 0 && errno == EINTR);) {
    text.append(room.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  }
  return text;
}

// Runs a program that reads first and writes then. 127: it is not there.
int run(const std::vector<std::string>& arguments, const std::string& input, std::string* output = nullptr,
        int inherited = -1) {
  Pipe in(arguments.front()), out(arguments.front());
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in.reader.get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, out.writer.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  if (inherited >= 0) {
    constexpr int any = 3;
    ::posix_spawn_file_actions_adddup2(&actions, inherited, any);
  }
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
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
  in.reader.reset();
  out.writer.reset();
  write_all(in.writer.get(), input);
  in.writer.reset();
  const auto text = read_all(out.reader.get());
  if (output != nullptr) {
    *output = text;
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int restore(bool v6, const std::string& rules, int inherited = -1) {
  return run({v6 ? "ip6tables-restore" : "iptables-restore", "-w", "--noflush"}, "*filter\n" + rules + "COMMIT\n",
             nullptr, inherited);
}

// ---- rules ----------------------------------------------------------------------------------------------------------

std::string text_of(const Connection& connection, const std::array<std::uint8_t, 16>& address) {
  char text[INET6_ADDRSTRLEN]{};
  ::inet_ntop(connection.v6 ? AF_INET6 : AF_INET, address.data(), text, sizeof text);
  return text;
}

struct Drops {
  std::string input, output;  // what comes in from the peer, and what goes out to it
};

Drops drops_of(const Connection& one) {
  const auto local = text_of(one, one.local), peer = text_of(one, one.peer);
  const auto drop = [](const std::string& from, int sport, const std::string& to, int dport) {
    return fmt::format("-p tcp -s {} --sport {} -d {} --dport {} -m mark ! --mark {:#x} -j DROP", from, sport, to,
                       dport, own_mark);
  };
  return {drop(peer, one.peer_port, local, one.local_port), drop(local, one.local_port, peer, one.peer_port)};
}

// Rules of all connections of a family, each in a chain or in the two that all packets pass.
std::string rules_of(const std::vector<Connection>& connections, bool v6, char action, const std::string& chain) {
  std::string rules;
  for (const auto& one : connections) {
    if (one.v6 == v6) {
      const auto [input, output] = drops_of(one);
      rules += fmt::format("-{} {} {}\n", action, chain.empty() ? "INPUT" : chain, input);
      rules += fmt::format("-{} {} {}\n", action, chain.empty() ? "OUTPUT" : chain, output);
    }
  }
  return rules;
}

bool has_family(const std::vector<Connection>& connections, bool v6) {
  return std::any_of(connections.begin(), connections.end(), [&](const Connection& one) { return one.v6 == v6; });
}

std::string pid_namespace() {
  std::array<char, 64> text{};
  const auto size = ::readlink("/proc/self/ns/pid", text.data(), text.size() - 1);
  return size > 0 ? std::string(text.data(), static_cast<std::size_t>(size)) : "?";
}

// Whose a chain is: nobody in another pid namespace can tell.
std::string owner() {
  const auto stat = procfs::parse_stat(procfs::Task(::getpid()).read("stat"));
  return fmt::format("of {} {} {}", ::getpid(), stat.start_time, pid_namespace());
}

bool is_gone(const std::string& owner) {
  int pid = 0;
  unsigned long long start = 0;
  char space[64]{};
  if (std::sscanf(owner.c_str(), "of %d %llu %63[^\"]", &pid, &start, space) != 3 || space != pid_namespace()) {
    return false;
  }
  try {
    const auto stat = procfs::parse_stat(procfs::Task(pid).read("stat"));
    return stat.start_time != start || stat.state == 'Z';
  } catch (const Error&) {
    return true;
  }
}

std::string removal_of(const std::string& chain) {
  return fmt::format("-D INPUT -j {0}\n-D OUTPUT -j {0}\n-F {0}\n-X {0}\n", chain);
}

void remove_stale(bool v6) {
  std::string saved;
  if (run({v6 ? "ip6tables-save" : "iptables-save", "-t", "filter"}, {}, &saved) != 0) {
    return;
  }
  std::istringstream lines(saved);
  for (std::string line; std::getline(lines, line);) {
    // -A CRIU-for-123 -m comment --comment "of 123 456 pid:[789]"
    std::istringstream words(line);
    std::string add, chain;
    words >> add >> chain;
    const auto comment = line.find("--comment \"");
    if (add == "-A" && chain.starts_with(chain_prefix) && comment != std::string::npos &&
        is_gone(line.substr(line.find('"', comment) + 1))) {
      LOG_WARN("the network lock {} is left over from a run that was killed; it is removed", chain);
      restore(v6, removal_of(chain));
    }
  }
}

// Nothing but the chains that come by themselves.
bool is_empty(const std::string& table) {
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first, second;
    words >> first >> second;
    const bool own_chain = first == "chain" && (second == "INPUT" || second == "FORWARD" || second == "OUTPUT");
    const bool usual = first.empty() || first == "}" || first == "table" || first == "#" || own_chain ||
                       (first == "type" && line.find("policy accept;") != std::string::npos);
    if (!usual) {
      return false;
    }
  }
  return true;
}

constexpr std::pair<unsigned, const char*> tables[] = {{ip_filter, "ip filter"}, {ip6_filter, "ip6 filter"}};

}  // namespace

bool works() { return restore(false, {}) == 0; }

unsigned missing_tables() {
  unsigned missing = 0;
  try {
    Nft nft;
    const auto list = nft.run("list tables", "look for the tables of iptables");
    for (const auto& [bit, name] : tables) {
      missing |= list.find(fmt::format("table {}\n", name)) == std::string::npos ? bit : 0;
    }
  } catch (const Error&) {
    return 0;  // without nftables there are only the tables of old, which are always there
  }
  return missing;
}

void remove_tables(unsigned made) {
  for (const auto& [bit, name] : tables) {
    if ((made & bit) == 0) {
      continue;
    }
    try {
      Nft nft;
      if (is_empty(nft.run(fmt::format("list table {}", name), "look at a table of iptables"))) {
        nft.run(fmt::format("delete table {}", name), "remove a table of iptables");
      }
    } catch (const Error&) {
      // It never came, or somebody else has removed it.
    }
  }
}

std::string save_legacy(bool v6) {
  const std::string tables = v6 ? "/proc/thread-self/net/ip6_tables_names" : "/proc/thread-self/net/ip_tables_names";
  const base::Fd file(::open(tables.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file || read_all(file.get()).empty()) {
    return {};  // a kernel, or a namespace, without any
  }
  std::string rules;
  const std::string program = v6 ? "ip6tables-legacy-save" : "iptables-legacy-save";
  if (const int status = run({program}, {}, &rules); status != 0) {
    throw Error("save the rules of iptables", program, status == 127 ? ENOENT : 0);
  }
  return rules;
}

void restore_legacy(bool v6, const std::string& rules) {
  const std::string program = v6 ? "ip6tables-legacy-restore" : "iptables-legacy-restore";
  if (const int status = run({program, "-w"}, rules); status != 0) {
    throw Error("restore the rules of iptables", program, status == 127 ? ENOENT : 0);
  }
}

Use::Use(std::string chain) : chain_(std::move(chain)), tables_(missing_tables()) {
  Pipe pipe("iptables");
  ended_ = std::move(pipe.reader);
  alive_ = std::move(pipe.writer);
}

void Use::lock(const std::vector<Connection>& connections) {
  for (const bool v6 : {false, true}) {
    if (has_family(connections, v6)) {
      const auto rules =
          fmt::format(":{0} - [0:0]\n-A {0} -m comment --comment \"{1}\"\n{2}-I INPUT -j {0}\n-I OUTPUT -j {0}\n",
                      chain_, owner(), rules_of(connections, v6, 'A', chain_));
      if (restore(v6, rules, alive_.get()) != 0) {
        unlock(connections, false);
        throw Error("lock the network", "iptables", 0, not_there);
      }
    }
  }
}

void Use::unlock(const std::vector<Connection>& connections, bool stay) {
  for (const bool v6 : {false, true}) {
    if (has_family(connections, v6)) {
      restore(v6, removal_of(chain_));
    }
  }
  if (!stay) {
    remove_tables(tables_);
  }
}

void Use::await_owner() const {
  char byte = 0;
  while (::read(ended_.get(), &byte, 1) < 0 && errno == EINTR) {
  }
}

void remove_stale() {
  remove_stale(false);
  remove_stale(true);
}

void add_rules(const std::vector<Connection>& connections) {
  for (const bool v6 : {false, true}) {
    const auto rules = rules_of(connections, v6, 'I', {});
    if (!rules.empty() && restore(v6, rules) != 0) {
      remove_rules(connections);
      throw Error("lock the network", "iptables", 0, not_there);
    }
  }
}

void remove_rules(const std::vector<Connection>& connections) {
  for (const bool v6 : {false, true}) {
    const auto rules = rules_of(connections, v6, 'D', {});
    if (!rules.empty() && restore(v6, rules) != 0) {
      // One of them is missing: those that are there have to go all the same.
      std::istringstream lines(rules);
      for (std::string line; std::getline(lines, line);) {
        restore(v6, line + "\n");
      }
    }
  }
}

void remove_namespace_lock(bool v6) {
  if (restore(v6, removal_of("CRIU")) != 0) {
    throw Error("unlock the network", v6 ? "ip6tables-restore" : "iptables-restore", 0,
                "the dump locked the network with iptables, which must be usable here to unlock it");
  }
}

bool has_rules(const Connection& connection) {
  std::vector<std::string> arguments{connection.v6 ? "ip6tables" : "iptables", "-w", "-C", "INPUT"};
  std::istringstream words(drops_of(connection).input);
  for (std::string word; words >> word;) {
    arguments.push_back(word);
  }
  return run(arguments, {}) == 0;
}

}  // namespace criu::sockets::iptables
