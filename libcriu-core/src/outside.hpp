// SPDX-License-Identifier: LGPL-2.1-only
// A dump or restore may have to be done where the tree lives: inside its pid namespace and its mounts, where pids and
// paths mean to us what they mean to the tree. Then a process of its own does it, a deputy. What concerns the outside
// (scripts of the user, the gates of a restore) remains with the process that made the deputy and serves it to its end.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <string>

#include "action_scripts.hpp"
#include "restorer/plan.hpp"

namespace criu::outside {

struct Errand {
  enum class Kind : std::uint32_t { event, open_gate, kill_root } kind;
  std::uint32_t value;  // the Event; the restorer::Stage; nothing
};

// Does an errand outside; what it throws is thrown where it was asked for.
using Serve = std::function<void(const Errand&)>;
using Work = std::function<std::string()>;  // what it returns is the result for who had it done

// Does the work in this process.
std::string stay(const Work&, const Serve&);
// Has it done by a process that `fork` makes (0: that is it) and that dies with this one. If the work throws
// base::Error or a kind of it, so does this.
std::string depute(const std::function<pid_t()>& fork, const Work&, const Serve&);

// For the work.
void ask(const Errand&);
inline void tell(Event event) { ask({Errand::Kind::event, static_cast<std::uint32_t>(event)}); }
inline void open_gate(restorer::Stage stage) { ask({Errand::Kind::open_gate, static_cast<std::uint32_t>(stage)}); }
// From here on the kernel may kill the deputy along with the tree's pid namespace: that is no failure any more, and
// this is the result.
void part(const std::string& result);

}  // namespace criu::outside
