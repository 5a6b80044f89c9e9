// SPDX-License-Identifier: LGPL-2.1-only
// A dump or restore may have to be done where the tree lives: inside its pid namespace and its mounts, where pids and
// paths mean to us what they mean to the tree. Then a process of its own does it, a deputy. What concerns the outside
// (scripts of the user, the gates of a restore) remains with the process that made the deputy and serves it to its end.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "action_scripts.hpp"
#include "base/fd.hpp"
#include "restorer/plan.hpp"

namespace criu::outside {

struct Errand {
  enum class Kind : std::uint32_t { event, external, open_gate, kill_root, connections, read_firewall, unlock } kind;
  std::uint32_t value;  // the Event; nothing; the restorer::Stage; nothing; the sockets::Call; nothing
};

// An errand as it arrives.
class Request {
 public:
  Errand errand;
  std::string data;  // that came with it

  Request(const Errand& what, std::string with, int from) : errand(what), data(std::move(with)), from_(from) {}
  // What is open under this number where it was asked for, by its number here, for as long as the request is served.
  int descriptor(int fd) const;

 private:
  int from_;  // a pidfd; -1: it was asked for in this process
  mutable std::vector<base::Fd> copies_;
};

// Does an errand outside and answers; what it throws is thrown where it was asked for.
using Serve = std::function<std::string(const Request&)>;
using Work = std::function<std::string()>;  // what it returns is the result for who had it done

// Does the work in this process.
std::string stay(const Work&, const Serve&);
// Has it done by a process that `fork` makes (0: that is it) and that dies with this one. If the work throws
// base::Error or a kind of it, so does this.
std::string depute(const std::function<pid_t()>& fork, const Work&, const Serve&);

// For the work: the answer.
std::string ask(const Errand&, std::string_view data = {});
inline void tell(Event event) { ask({Errand::Kind::event, static_cast<std::uint32_t>(event)}); }
inline void open_gate(restorer::Stage stage) { ask({Errand::Kind::open_gate, static_cast<std::uint32_t>(stage)}); }
// From here on the kernel may kill the deputy along with the tree's pid namespace: that is no failure any more, and
// this is the result.
void part(const std::string& result);

}  // namespace criu::outside
