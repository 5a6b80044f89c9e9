// SPDX-License-Identifier: LGPL-2.1-only
#include "thread.hpp"

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <arch/stub.hpp>
#include <atomic>
#include <cstring>

#include "procfs.hpp"

namespace compel {
namespace {

constexpr int get_rseq_configuration = 0x420f;  // Linux 5.13
constexpr int suspend_seccomp = 1 << 21;
constexpr unsigned regset_xstate = 0x202, regset_shadow_stack = 0x204;

// Left unblocked while something runs: for a fault whose signal is blocked the kernel would reset the task's handler.
constexpr std::uint64_t signal_bit(int number) { return std::uint64_t{1} << (number - 1); }
constexpr std::uint64_t fault_signals = signal_bit(SIGSEGV) | signal_bit(SIGBUS) | signal_bit(SIGILL) |
                                        signal_bit(SIGFPE) | signal_bit(SIGTRAP) | signal_bit(SIGSYS);

struct RseqConfiguration {
  std::uint64_t pointer;
  std::uint32_t size, signature, flags, padding;
};

struct RseqSection {
  std::uint32_t version, flags;
  std::uint64_t start, length, abort_ip;
};

long request(int what, pid_t tid, std::uintptr_t address, std::uintptr_t data) {
  return ::syscall(SYS_ptrace, what, tid, address, data);
}
std::uintptr_t as_word(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

bool regset(int what, pid_t tid, unsigned type, void* data, std::size_t& size) {
  iovec vector{data, size};
  const bool done = request(what, tid, type, as_word(&vector)) == 0;
  size = vector.iov_len;
  return done;
}

// The shadow stack pointer of a 64-bit thread; 0: it has none. A kernel without shadow stacks is asked once.
std::uint64_t shadow_stack_of(pid_t tid) {
  static std::atomic<bool> known{true};
  std::uint64_t pointer = 0;
  std::size_t size = sizeof pointer;
  if (!known || regset(PTRACE_GETREGSET, tid, regset_shadow_stack, &pointer, size)) {
    return pointer;
  }
  known = errno != EINVAL;
  return 0;
}

}  // namespace

Crash::Crash(const std::string& object, const siginfo_t& info, std::uint64_t ip)
    : base::Error("run", object, EFAULT,
                  std::string("it got ") + ::strsignal(info.si_signo) + " at address " +
                      std::to_string(reinterpret_cast<std::uintptr_t>(info.si_addr)) + ", instruction " +
                      std::to_string(ip)) {}

std::string Thread::describe() const { return procfs::describe(pid_, tid_); }

bool Thread::seize() {
  // A filter of the task is not made for our calls. Whoever may not suspend it gets the thread without that: the filter
  // then decides about each call.
  options_ = PTRACE_O_TRACESYSGOOD | suspend_seccomp;
  const std::uintptr_t at_first = watch_end();
  bool done = request(PTRACE_SEIZE, tid_, 0, options_ | at_first) == 0;
  if (!done) {
    options_ &= ~std::uintptr_t{suspend_seccomp};
    done = request(PTRACE_SEIZE, tid_, 0, options_ | at_first) == 0;
  }
  if (!done) {
    const int error = errno;
    const auto about = procfs::stat(tid_);
    if (error == ESRCH || !about || about->dead()) {
      gone_ = true;
      return false;
    }
    const long tracer = procfs::status_number(tid_, "TracerPid");
    if (tracer > 0) {
      throw base::Error("seize", describe(), EBUSY, "it is traced by " + procfs::describe(static_cast<pid_t>(tracer)));
    }
    throw base::Error("seize", describe(), error, error == EPERM ? "CAP_SYS_PTRACE over the task is needed" : "");
  }
  seized_ = true;
  return true;
}

// The kernel does not report the end of a leader before all other threads are reaped, and those wait for us while we
// wait for the leader. So, while we wait for it, its end is to be reported when it begins. Not at other times: a kill
// of a frozen task should not depend on us.
std::uintptr_t Thread::watch_end() const { return tid_ == pid_ ? PTRACE_O_TRACEEXIT : 0; }

void Thread::watch_end(bool on) {
  if (watch_end() != 0) {
    request(PTRACE_SETOPTIONS, tid_, 0, options_ | (on ? watch_end() : 0));
  }
}

void Thread::interrupt() {
  if (request(PTRACE_INTERRUPT, tid_, 0, 0) != 0 && errno != ESRCH) {
    throw base::Error("interrupt", describe(), errno);
  }
}

Stop Thread::wait(int flags) {
  int status = 0;
  if (own_child_) {
    // Our own child: waiting for its end would take the zombie away from the program we are part of.
    siginfo_t info{};
    const int looked = ::waitid(P_PID, static_cast<id_t>(tid_), &info, WSTOPPED | WEXITED | WNOWAIT | __WALL | flags);
    if (looked == 0 && info.si_pid == 0) {
      return {};
    }
    if (looked == 0 && info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED) {
      gone_ = true;
      return {Stop::gone, 0};
    }
  }
  pid_t result;
  do {
    result = ::waitpid(tid_, &status, __WALL | flags);
  } while (result < 0 && errno == EINTR);
  if (result == 0) {
    return {};
  }
  if (result < 0 || WIFEXITED(status) || WIFSIGNALED(status)) {
    gone_ = true;
    stopped_ = false;
    return {Stop::gone, 0};
  }
  if (status >> 16 == PTRACE_EVENT_EXIT) {
    // What is left of it is for its parent alone.
    request(PTRACE_DETACH, tid_, 0, 0);
    gone_ = true;
    seized_ = stopped_ = false;
    return {Stop::gone, 0};
  }
  const int signal_number = WSTOPSIG(status);
  if (status >> 16 == PTRACE_EVENT_STOP) {
    return {Stop::trap, signal_number};
  }
  if (signal_number == (SIGTRAP | 0x80)) {
    return {Stop::system_call, 0};
  }
  return {Stop::signal, signal_number};
}

bool Thread::settle() {
  for (;;) {
    const Stop stop = wait(WNOHANG);
    switch (stop.kind) {
      case Stop::none:
        return false;
      case Stop::gone:
        return true;
      case Stop::trap:
        stopped_ = true;
        watch_end(false);
        request(PTRACE_GETREGS, tid_, 0, as_word(&frozen_));
        stop_signal_ = stop.signal_number == SIGTRAP ? 0 : stop.signal_number;
        return true;
      case Stop::system_call:
        resume(PTRACE_CONT);
        break;
      case Stop::signal:
        // It was on its way before us: it is delivered, and the trap that is pending comes before the handler's first
        // instruction.
        resume(PTRACE_CONT, stop.signal_number);
        break;
    }
  }
}

void Thread::resume(int what, int signal_number) {
  if (request(what, tid_, 0, static_cast<std::uintptr_t>(signal_number)) != 0 && errno != ESRCH) {
    throw base::Error("resume", describe(), errno);
  }
}

user_regs_struct Thread::current_registers() const {
  user_regs_struct registers{};
  if (request(PTRACE_GETREGS, tid_, 0, as_word(&registers)) != 0) {
    if (errno == ESRCH) {
      throw Gone("read registers", describe(), ESRCH);
    }
    throw base::Error("read registers", describe(), errno);
  }
  return registers;
}

void Thread::set_registers(const user_regs_struct& registers) {
  if (request(PTRACE_SETREGS, tid_, 0, as_word(&registers)) != 0) {
    if (errno == ESRCH) {
      throw Gone("set registers", describe(), ESRCH);
    }
    throw base::Error("set registers", describe(), errno);
  }
}

const Saved& Thread::saved() {
  if (saved_) {
    return *saved_;
  }
  if (gone_) {
    throw Gone("read registers", describe(), ESRCH);
  }
  auto fresh = std::make_unique<Saved>();
  fresh->registers = frozen_;
  fresh->home = fresh->registers;
  if (request(PTRACE_GETSIGMASK, tid_, sizeof fresh->mask, as_word(&fresh->mask)) != 0) {
    throw base::Error("read the signal mask", describe(), errno);
  }
  if (arch::is_64bit(fresh->registers)) {
    fresh->shadow_stack = shadow_stack_of(tid_);
  }
  saved_ = std::move(fresh);
  read_rseq();
  return *saved_;
}

void Thread::read_rseq() {
  RseqConfiguration configuration{};
  if (request(get_rseq_configuration, tid_, sizeof configuration, as_word(&configuration)) < 0) {
    return;
  }
  compel_rseq_info& rseq = saved_->rseq;
  saved_->rseq_known = true;
  rseq.pointer = configuration.pointer;
  rseq.size = configuration.size;
  rseq.signature = configuration.signature;
  if (rseq.pointer == 0) {
    return;
  }
  const auto peek = [this](std::uint64_t address, void* to, std::size_t size) {
    const iovec local{to, size}, remote{reinterpret_cast<void*>(address), size};
    return ::process_vm_readv(tid_, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(size);
  };
  constexpr std::uint64_t section_field = 8;  // of struct rseq
  RseqSection section{};
  if (!peek(rseq.pointer + section_field, &rseq.critical_section, 8) || rseq.critical_section == 0 ||
      !peek(rseq.critical_section, &section, sizeof section)) {
    return;
  }
  rseq.start = section.start;
  rseq.length = section.length;
  rseq.abort_ip = section.abort_ip;
  rseq.inside = saved_->registers.rip - section.start < section.length ? 1 : 0;
  if (rseq.inside != 0) {
    // The kernel would send it there by itself, but only if it found it inside: it will see the thread somewhere else
    // first, and forget the section.
    saved_->home.rip = section.abort_ip;
  }
}

void Thread::set_home(const user_regs_struct& registers) {
  saved();
  set_registers(registers);
  saved_->home = registers;
}

user_regs_struct Thread::stub_registers() {
  user_regs_struct registers = saved().home;
  bool compat = false;
  if (arch::restarting(registers) && static_cast<std::int64_t>(registers.rax) == arch::restart_block) {
    std::uint8_t instruction[2] = {0, 0};
    const iovec local{instruction, 2}, remote{reinterpret_cast<void*>(registers.rip - 2), 2};
    compat =
        ::process_vm_readv(tid_, &local, 1, &remote, 1, 0) == 2 && instruction[0] == 0xcd && instruction[1] == 0x80;
  }
  arch::apply_restart(registers, compat);
  return registers;
}

void Thread::keep_vectors() {
  saved();
  std::vector<std::byte> state(arch::xsave_size());
  std::size_t size = state.size();
  if (!regset(PTRACE_GETREGSET, tid_, regset_xstate, state.data(), size)) {
    throw base::Error("read vector registers", describe(), errno);
  }
  state.resize(size);
  saved_->vectors = std::move(state);
}

void Thread::borrow(const user_regs_struct& first) {
  const Saved& was = saved();
  if (!arch::is_64bit(was.home)) {
    throw base::Error("enter", describe(), EOPNOTSUPP, "it runs 32-bit code");
  }
  watch_end(true);
  const auto set_mask = [this](const std::uint64_t& mask) {
    return request(PTRACE_SETSIGMASK, tid_, sizeof mask, as_word(&mask)) == 0;
  };
  // The mask of the call itself must go while the call can still tell the kernel what to do: a handler that it lets in
  // ends the call, but would only interrupt the way home, and the call be made again and wait for a second signal.
  if (arch::waits_with_own_mask(was.registers) && !set_mask(was.mask)) {
    throw base::Error("set the signal mask", describe(), errno);
  }
  set_registers(first);  // before the mask, which only the way home puts back
  if (!set_mask(~fault_signals | was.mask)) {
    const int error = errno;
    set_registers(was.home);
    throw base::Error("block signals", describe(), error);
  }
}

void Thread::give_back(std::uint64_t stub) {
  if (!saved_->vectors.empty()) {
    std::size_t size = saved_->vectors.size();
    if (!regset(PTRACE_SETREGSET, tid_, regset_xstate, saved_->vectors.data(), size)) {
      throw base::Error("set vector registers", describe(), errno);
    }
    saved_->vectors.clear();
  }
  if (saved_->shadow_stack != 0) {
    std::size_t size = sizeof saved_->shadow_stack;
    regset(PTRACE_SETREGSET, tid_, regset_shadow_stack, &saved_->shadow_stack, size);
  }
  set_registers(arch::stub_home(saved_->home, stub));
  if (request(PTRACE_SETSIGMASK, tid_, sizeof saved_->mask, as_word(&saved_->mask)) != 0) {
    throw base::Error("set the signal mask", describe(), errno);
  }
  set_registers(saved_->home);
  watch_end(false);
}

siginfo_t Thread::signal_info() const {
  siginfo_t info{};
  request(PTRACE_GETSIGINFO, tid_, 0, as_word(&info));
  return info;
}

bool Thread::is_fault(const siginfo_t& info) {
  switch (info.si_signo) {
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGTRAP:
    case SIGSYS:
      return info.si_code > 0;  // from the kernel, for what the thread did
    default:
      return false;
  }
}

// SIGSTOP, which nobody can block, takes effect at once: the kernel then notes that the task is in a job-control stop
// (which a SIGCONT may end meanwhile), the thread runs on for us all the same, and the stop becomes real, and known to
// the parent, when we let go. Anything else is a signal for faults that somebody has sent. It is blocked from here on,
// so the kernel puts it back among the pending ones, as it was sent, until the thread has its own mask again.
int Thread::pass_or_hold() {
  const siginfo_t info = signal_info();
  if (is_fault(info)) {
    throw Crash(describe(), info, current_registers().rip);
  }
  std::uint64_t mask = 0;
  if (info.si_signo != SIGSTOP && request(PTRACE_GETSIGMASK, tid_, sizeof mask, as_word(&mask)) == 0) {
    mask |= signal_bit(info.si_signo);
    request(PTRACE_SETSIGMASK, tid_, sizeof mask, as_word(&mask));
  }
  return info.si_signo;
}

Stop Thread::next(int what) {
  for (int deliver = 0;;) {
    resume(what, deliver);
    const Stop stop = wait(0);
    if (stop.kind == Stop::gone) {
      throw Gone("run", describe(), ESRCH, "it died meanwhile");
    }
    if (stop.kind != Stop::signal) {
      return stop;
    }
    deliver = pass_or_hold();
  }
}

Stop Thread::poll() {
  for (;;) {
    const Stop stop = wait(WNOHANG);
    if (stop.kind == Stop::gone) {
      throw Gone("run", describe(), ESRCH, "it died meanwhile");
    }
    if (stop.kind == Stop::none) {
      return stop;
    }
    // A trap here is a group stop that somebody has started; the thread is ours for now and works on.
    resume(PTRACE_CONT, stop.kind == Stop::signal ? pass_or_hold() : 0);
  }
}

void Thread::stop_crashed() {
  interrupt();
  resume(PTRACE_CONT);  // the signal is dropped, and the trap that is pending now comes before any instruction
  while (wait(0).kind != Stop::trap) {
    if (gone_) {
      throw Gone("stop", describe(), ESRCH, "it died meanwhile");
    }
    resume(PTRACE_CONT);
  }
}

void Thread::stop_inside() {
  interrupt();
  await_trap();
}

void Thread::await_trap() {
  for (;;) {
    const Stop stop = wait(0);
    if (stop.kind == Stop::gone) {
      throw Gone("stop", describe(), ESRCH, "it died meanwhile");
    }
    if (stop.kind == Stop::trap) {
      return;
    }
    resume(PTRACE_CONT, stop.kind == Stop::signal ? pass_or_hold() : 0);
  }
}

bool Thread::detach() noexcept {
  if (!seized_ || gone_) {
    return true;
  }
  if (!stopped_ && !settle()) {
    return false;
  }
  if (request(PTRACE_DETACH, tid_, 0, 0) != 0) {
    reap_killed();  // nothing else takes a thread out of its stop
  }
  seized_ = false;
  return true;
}

void Thread::reap_killed() noexcept {
  if (!seized_ || gone_) {
    return;
  }
  // A traced thread that dies waits for its tracer first; the zombie of the process is then for its parent.
  for (;;) {
    const Stop stop = wait(0);
    if (stop.kind == Stop::gone) {
      return;
    }
    request(PTRACE_CONT, tid_, 0, 0);
  }
}

}  // namespace compel
