// SPDX-License-Identifier: LGPL-2.1-only
// One seized thread: its stops, what it was when it was frozen, and how it is made to run something else and put back.
//
// The rule of all here: at no moment may a thread have registers or a signal mask which would be wrong if its tracer
// were gone the next. What is to be restored lies ready in a stub in the task (see arch/x86/compel/stub.S) before the
// thread is touched.
#pragma once

#include <compel/compel.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/user.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "error.hpp"

namespace compel {

struct Stop {
  enum Kind { none, gone, trap, system_call, signal } kind = none;
  int signal_number =
      0;  // of a signal that is about to be delivered; of a trap: what stopped the whole task, or SIGTRAP
};

// How a thread was when it was frozen.
struct Saved {
  user_regs_struct registers{};  // as found
  user_regs_struct home{};       // where it goes on: as found, but outside of a disturbed restartable sequence
  std::uint64_t mask = 0;
  compel_rseq_info rseq{};
  bool rseq_known = false;
  std::uint64_t shadow_stack = 0;  // 0: none
  std::vector<std::byte> vectors;  // only while something runs that may change them
};

class Thread {
 public:
  Thread(pid_t pid, pid_t tid, bool own_child) : pid_(pid), tid_(tid), own_child_(own_child) {}
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  pid_t tid() const { return tid_; }
  bool stopped() const { return stopped_; }
  bool gone() const { return gone_; }
  int stop_signal() const { return stop_signal_; }
  std::string describe() const;

  // False when it has vanished. Throws when somebody else traces it or the kernel forbids it.
  bool seize();
  void interrupt();
  // Takes notice of what happened to a thread that was told to stop. True when it is stopped or gone.
  bool settle();

  const Saved& saved();
  void set_home(const user_regs_struct& registers);
  // Registers that the stub is to restore: there the kernel's own restart logic does not run.
  user_regs_struct stub_registers();

  void keep_vectors();
  // From its own registers to `first` with signals blocked (but for faults). From there on it may be given any. Should
  // we die before they are blocked, `first` is what it goes on with: there it must find its way home.
  void borrow(const user_regs_struct& first);
  void set_registers(const user_regs_struct& registers);
  user_regs_struct current_registers() const;
  // Back to its own registers, mask and vectors; to be called in a trap stop.
  void give_back(std::uint64_t stub);

  void resume(int request, int signal_number = 0);
  // Resumes until something happens other than a signal, which is held back. Throws Gone, or Crash.
  Stop next(int request);
  Stop poll();          // what has happened, without waiting; held signals handled
  void await_trap();    // after interrupt()
  void stop_inside();   // interrupts it and waits for the trap
  void stop_crashed();  // the same after a Crash

  // Whether the crash of a run (a synchronous fault) is what the thread stopped for.
  static bool is_fault(const siginfo_t& info);

  // False when it cannot be let go yet, because it has not stopped.
  bool detach() noexcept;
  void reap_killed() noexcept;

 private:
  Stop wait(int flags);
  siginfo_t signal_info() const;
  std::uintptr_t watch_end() const;
  void watch_end(bool on);
  int pass_or_hold();  // what to do with a signal that is about to be delivered: the number to resume with
  void read_rseq();

  pid_t pid_, tid_;
  bool own_child_;
  std::uintptr_t options_ = 0;
  bool seized_ = false, stopped_ = false, gone_ = false;
  user_regs_struct frozen_{};
  int stop_signal_ = 0;
  std::unique_ptr<Saved> saved_;
};

// Something that ran in the thread has crashed.
class Crash : public base::Error {
 public:
  Crash(const std::string& object, const siginfo_t& info, std::uint64_t ip);
};

}  // namespace compel
