// SPDX-License-Identifier: GPL-2.0-only
// Starting, watching and clearing away processes, for the harness.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"

namespace live {

using Clock = std::chrono::steady_clock;

// Starts a program: a session leader, standard streams on /dev/null (or, for the output, a file), no other descriptor,
// all signals as at boot. `namespaces`: clone flags; `prepare` is called in there first, false is the end.
pid_t start(const std::vector<std::string>& arguments, const std::string& output = "/dev/null",
            unsigned long namespaces = 0, const std::function<bool()>& prepare = {});

bool make_mounts_private();
// Private, so that the new /proc is seen here alone.
bool mount_own_proc();
// Mounts, in this mount namespace, a /proc of the pid namespace that a process is in.
bool mount_proc_of(pid_t pid, const std::string& where);

// Waits for a child's end; nothing when it has not ended in time. The value is a wait status.
std::optional<int> wait_for(pid_t pid, Clock::time_point until);

// Runs a program to its end; nothing when it took too long (it is killed then).
std::optional<int> run(const std::vector<std::string>& arguments, const std::string& output,
                       std::chrono::seconds limit);

// Watches a directory for files that come into it.
class Arrival {
 public:
  explicit Arrival(const std::string& directory);
  // Waits until the file is there; false when the process ended or the time did.
  bool wait(const std::string& name, pid_t while_alive, Clock::time_point until);

 private:
  std::string directory_;
  base::Fd inotify_;
};

// Reaps ended children; the ones that still live after the limit are returned.
std::vector<pid_t> reap_all(std::chrono::seconds limit, pid_t except = 0);
// Kills and reaps everything below this process, which must be a subreaper or the init of a namespace.
void kill_all_below();

// "exit status 1", "killed by signal 11".
std::string describe(int wait_status);

}  // namespace live
