// SPDX-License-Identifier: LGPL-2.1-only
#include "task/handover.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "base/error.hpp"
#include "core/registers.hpp"
#include "restorer/builder.hpp"
#include "task/master.hpp"

namespace criu::task {

using base::check;
using base::Error;

namespace {

template <typename Visit>
void for_each_thread(const Checkpoint& checkpoint, Visit visit) {
  for (const auto& task : checkpoint.tasks) {
    if (task->alive()) {
      visit(*task, task->pid(), task->core);
      for (int i = 0; i < task->threads.size(); ++i) {
        visit(*task, static_cast<pid_t>(task->entry.threads(i + 1)), task->threads[i]);
      }
    }
  }
}

// Waits for the next stop of a thread and checks that it is the expected one.
void expect_stop(pid_t tid, int wanted, const char* what) {
  int status = 0;
  check(::waitpid(tid, &status, __WALL), "wait for thread", std::to_string(tid));
  if (!WIFSTOPPED(status) || status >> 8 != wanted) {
    throw Error("a restored thread did not stop as it should",
                fmt::format("thread {} {}: status {:#x}", tid, what, status), 0);
  }
}

constexpr std::uint64_t bit_of(int signo) { return std::uint64_t{1} << (signo - 1); }

std::uint64_t saved_mask(const images::core_entry& core) {
  return core.has_tc() ? core.tc().blk_sigset() : core.thread_core().blk_sigset();
}

void set_mask(pid_t tid, std::uint64_t mask) {
  check(::ptrace(PTRACE_SETSIGMASK, tid, sizeof mask, &mask), "set the signal mask of", fmt::format("thread {}", tid));
}

// Process groups that the signals of a terminal can stop: some member's parent is in another group of the session.
std::set<pid_t> groups_under_job_control(const Checkpoint& checkpoint) {
  std::set<pid_t> groups;
  for (const auto& task : checkpoint.tasks) {
    const auto group = static_cast<pid_t>(task->entry.pgid()), session = static_cast<pid_t>(task->entry.sid());
    const auto* parent = task->parent;
    const auto parent_group = parent != nullptr ? static_cast<pid_t>(parent->entry.pgid()) : ::getpgrp();
    const auto parent_session = parent != nullptr ? static_cast<pid_t>(parent->entry.sid()) : ::getsid(0);
    if (parent_session == session && parent_group != group) {
      groups.insert(group);
    }
  }
  return groups;
}

// The signal that stopped a process, if it would do so again, and else the one that always does.
int stop_signal(const TaskImage& task, const std::set<pid_t>& job_control) {
  const auto& tc = task.core.tc();
  const auto signo = tc.has_stop_signo() ? static_cast<int>(tc.stop_signo()) : SIGSTOP;
  const bool of_a_terminal = signo == SIGTSTP || signo == SIGTTIN || signo == SIGTTOU;
  // Of the actions two are not in the list: those of SIGKILL and SIGSTOP, both below these three.
  const bool stops = of_a_terminal && tc.sigactions(signo - 3).sigaction() == 0 &&
                     job_control.contains(static_cast<pid_t>(task.entry.pgid()));
  return stops ? signo : SIGSTOP;
}

std::uint64_t syscall_instruction(const restorer::Region& region) {
  const auto code = restorer::code();
  for (std::size_t i = 0; i + 1 < code.size(); ++i) {
    if (code[i] == std::byte{0x0f} && code[i + 1] == std::byte{0x05}) {
      return region.start + i;
    }
  }
  throw Error("no system call instruction in the restorer", {}, 0);
}

}  // namespace

Handover::~Handover() {
  for (const auto tid : attached_) {
    ::kill(tid, SIGKILL);  // whichever of its threads is named, the process is meant
  }
  reap_attached(false);
  reap_attached(true);
}

// A traced thread that died is its tracer's to reap, and its process cannot be reaped before it.
void Handover::reap_attached(bool leaders) const {
  for_each_thread(checkpoint_, [&](const TaskImage& task, pid_t tid, const images::core_entry&) {
    if (!attached_.contains(tid) || (tid == task.pid()) != leaders || tid == checkpoint_.root().pid()) {
      return;
    }
    reap(tid);
  });
}

void Handover::attach() {
  bool seccomp = false;
  for_each_thread(checkpoint_, [&](const TaskImage&, pid_t, const images::core_entry& core) {
    seccomp = seccomp || core.thread_core().seccomp_mode() != images::disabled;
  });
  options_ = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD | (seccomp ? PTRACE_O_SUSPEND_SECCOMP : 0);
  for_each_thread(checkpoint_, [&](const TaskImage& task, pid_t tid, const images::core_entry&) {
    check(::ptrace(PTRACE_SEIZE, tid, nullptr, options_), "attach to",
          fmt::format("thread {} of {}", tid, task.name()));
    attached_.insert(tid);
  });
}

void Handover::stop() {
  for_each_thread(checkpoint_, [](const TaskImage& task, pid_t tid, const images::core_entry&) {
    check(::ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr), "stop", fmt::format("thread {} of {}", tid, task.name()));
  });
  for_each_thread(checkpoint_, [&](const TaskImage&, pid_t tid, const images::core_entry& core) {
    expect_stop(tid, SIGTRAP | PTRACE_EVENT_STOP << 8, "at the last gate");
    if (core.thread_core().extension().has_sleep()) {
      put_to_sleep(tid);
    }
  });
}

// A thread may have been stopped before it reached its sleep, or between that and the gate: it is led there system call
// by system call, and stopped again inside. Beyond the gate it would never come.
void Handover::put_to_sleep(pid_t tid) {
  auto where = arch::where_asleep(tid);
  while (where == arch::Sleeping::not_yet) {
    do {
      check(::ptrace(PTRACE_SYSCALL, tid, nullptr, nullptr), "run", std::to_string(tid));
      expect_stop(tid, SIGTRAP | 0x80, "on its way to sleep");
    } while (!arch::enters_sleep(tid) && !arch::enters_gate(tid));
    check(::ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr), "stop", std::to_string(tid));
    check(::ptrace(PTRACE_CONT, tid, nullptr, nullptr), "run", std::to_string(tid));
    expect_stop(tid, SIGTRAP | PTRACE_EVENT_STOP << 8, "asleep");
    where = arch::where_asleep(tid);
    if (where == arch::Sleeping::not_yet) {
      where = arch::Sleeping::over;  // nothing was left of the sleep
    }
  }
  if (where == arch::Sleeping::asleep) {
    asleep_.insert(tid);
  }
}

// With an instruction of the very code that goes: the thread is stopped again before it would need the next one.
void Handover::unmap_restorer(pid_t leader, const restorer::Region& region) {
  user_regs_struct regs{};
  check(::ptrace(PTRACE_GETREGS, leader, nullptr, &regs), "read registers of", std::to_string(leader));
  regs.orig_rax = ~0ULL;
  regs.rip = syscall_instruction(region);
  regs.rax = SYS_munmap;
  regs.rdi = region.start;
  regs.rsi = region.size;
  check(::ptrace(PTRACE_SETREGS, leader, nullptr, &regs), "set registers of", std::to_string(leader));
  for (const char* what : {"entering munmap", "leaving munmap"}) {
    check(::ptrace(PTRACE_SYSCALL, leader, nullptr, nullptr), "run", std::to_string(leader));
    expect_stop(leader, SIGTRAP | 0x80, what);
  }
  check(::ptrace(PTRACE_GETREGS, leader, nullptr, &regs), "read registers of", std::to_string(leader));
  if (regs.rax != 0) {
    throw Error("unmap the restorer", std::to_string(leader), -static_cast<int>(regs.rax));
  }
}

void Handover::put_registers() {
  for (std::size_t i = 0; i < checkpoint_.tasks.size(); ++i) {
    if (checkpoint_.tasks[i]->alive()) {
      unmap_restorer(checkpoint_.tasks[i]->pid(), regions_[i]);
    }
  }
  for_each_thread(checkpoint_, [&](const TaskImage&, pid_t tid, const images::core_entry& core) {
    arch::restore_registers(tid, core, asleep_.contains(tid));
    set_mask(tid, saved_mask(core));
  });
}

// The first thread takes the signal while we still hold all of them, so that none runs as much as one instruction: when
// they are let go, each goes from our stop into that of its process.
void Handover::stop_again(const TaskImage& task, int signo) const {
  const auto leader = task.pid();
  set_mask(leader, ~bit_of(signo));  // or another pending signal would come first
  check(::syscall(SYS_tgkill, leader, leader, signo), "stop", task.name());
  check(::ptrace(PTRACE_CONT, leader, nullptr, nullptr), "run", task.name());
  expect_stop(leader, signo, "taking the signal that stops it");
  check(::ptrace(PTRACE_CONT, leader, nullptr, signo), "stop", task.name());
  expect_stop(leader, signo | PTRACE_EVENT_STOP << 8, "stopped with its process");
  set_mask(leader, saved_mask(task.core));
}

// Until here the death of this process is the end of all tasks, from here on it lets them go. One thread that is bound
// to us is enough to take its process along: so the leaders come last, and one after the other, without a wait that
// could hold us up between them. For a single process this is one step.
void Handover::commit() {
  const auto unbind = [this](bool leaders) {
    for_each_thread(checkpoint_, [&](const TaskImage& task, pid_t tid, const images::core_entry&) {
      if ((tid == task.pid()) == leaders) {
        check(::ptrace(PTRACE_SETOPTIONS, tid, nullptr, options_ & ~static_cast<long>(PTRACE_O_EXITKILL)), "let go",
              std::to_string(tid));
      }
    });
  };
  unbind(false);
  unbind(true);
}

void Handover::release(bool leave_stopped) {
  const auto job_control = groups_under_job_control(checkpoint_);
  for (const auto& task : checkpoint_.tasks) {
    if (task->alive() && (leave_stopped || task->state() == TaskState::stopped)) {
      stop_again(*task, leave_stopped ? SIGSTOP : stop_signal(*task, job_control));
    }
  }
  commit();
  for_each_thread(checkpoint_, [](const TaskImage& task, pid_t tid, const images::core_entry&) {
    check(::ptrace(PTRACE_DETACH, tid, nullptr, nullptr), "let go", fmt::format("thread {} of {}", tid, task.name()));
  });
  attached_.clear();
}

}  // namespace criu::task
