// SPDX-License-Identifier: GPL-2.0-only
// Processes to be frozen and entered. They die with the test that made them.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <string>

namespace test {

// Memory that a test and its victims see.
struct Board {
  std::atomic<int> ready;     // counted up by the victim
  std::atomic<int> released;  // set by the test when the victim may go on
  std::atomic<long> values[64];
};

class Victim {
 public:
  // Runs `body` in a child of its own session; its result is the exit code.
  explicit Victim(const std::function<int(Board&)>& body);
  Victim(const Victim&) = delete;
  Victim& operator=(const Victim&) = delete;
  ~Victim();

  pid_t pid() const { return pid_; }
  Board& board() const { return *board_; }
  void wait_ready(int count = 1) const;
  // Until thread `tid` (0: the leader) sleeps inside this system call.
  void wait_blocked_in(long number, pid_t tid = 0) const;
  // Exit code, or minus the signal that ended it.
  int join();

 private:
  Board* board_;
  pid_t pid_ = 0;
};

// The content of /proc/PID/`name`.
std::string proc_text(pid_t pid, const std::string& name);

// A line of its status file, after "key:\t".
std::string status_line(pid_t pid, const std::string& key);

// Its mappings, without what the kernel counts: to be compared before and after.
std::string maps(pid_t pid);

// Monotonic milliseconds.
long now_ms();

// Waits until `condition` holds, which somebody else is bringing about; false after many seconds.
bool eventually(const std::function<bool()>& condition);

}  // namespace test
