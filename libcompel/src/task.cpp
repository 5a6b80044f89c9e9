// SPDX-License-Identifier: LGPL-2.1-only
#include "task.hpp"

#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "parasite.hpp"

using compel::Gone;
using compel::Stop;
using compel::Thread;
namespace procfs = compel::procfs;

namespace {

// A running thread cannot be let go by a tracer that lives. These were told to stop, and will.
thread_local std::vector<std::unique_ptr<Thread>> stragglers;

// Threads of the kernel's own must not even be told to stop: they do so late, or never. /proc knows them, but it takes
// longer to ask than all the rest of a seizure; a robust list is a thing that only user code can have registered, and
// libcs do for every thread.
bool is_worker(const procfs::TaskDirectory& directory, pid_t tid) {
  void* list = nullptr;
  std::size_t size = 0;
  if (::syscall(SYS_get_robust_list, tid, &list, &size) == 0 && list != nullptr) {
    return false;
  }
  const auto about = directory.stat(tid);
  return about && about->kernel_worker();
}

}  // namespace

void compel::release_stragglers() noexcept {
  stragglers.erase(
      std::remove_if(stragglers.begin(), stragglers.end(), [](const auto& thread) { return thread->detach(); }),
      stragglers.end());
}

compel_task::compel_task(pid_t pid, pid_t ppid)
    : pid_(pid), ppid_(ppid), own_child_(ppid == ::getpid()), directory_(pid) {}

compel_task::~compel_task() {
  try {
    release(COMPEL_RESUME);
  } catch (...) {
    // A destructor has nobody to tell.
  }
}

compel_state compel_task::state() const {
  if (threads_.empty()) {
    return COMPEL_ZOMBIE;
  }
  return stop_signal() != 0 ? COMPEL_STOPPED : COMPEL_ALIVE;
}

int compel_task::stop_signal() const { return threads_.empty() ? 0 : threads_.front()->stop_signal(); }

bool compel_task::seize_new_threads(std::vector<Thread*>& unsettled) {
  bool grew = false;
  for (const pid_t tid : directory_.threads()) {
    if (by_tid_.count(tid) != 0 || is_worker(directory_, tid)) {
      continue;
    }
    auto thread = std::make_unique<Thread>(pid_, tid, own_child_ && tid == pid_);
    if (!thread->seize()) {
      continue;
    }
    by_tid_[tid] = thread.get();
    threads_.push_back(std::move(thread));
    unsettled.push_back(threads_.back().get());
    unsettled.back()->interrupt();
    grew = true;
  }
  return grew;
}

void compel_task::children(std::vector<pid_t>& out) const {
  for (const auto& thread : threads_) {
    if (!directory_.children(thread->tid(), out)) {
      throw base::Error("list children", procfs::describe(pid_), EOPNOTSUPP,
                        "the kernel has no /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN)");
    }
  }
}

void compel_task::finish_freezing() {
  std::vector<std::unique_ptr<Thread>> alive;
  for (auto& thread : threads_) {
    if (thread->gone()) {
      by_tid_.erase(thread->tid());
    } else {
      alive.push_back(std::move(thread));
    }
  }
  threads_ = std::move(alive);
  std::stable_partition(threads_.begin(), threads_.end(), [this](const auto& thread) { return thread->tid() == pid_; });
  tids_.clear();
  for (const auto& thread : threads_) {
    tids_.push_back(thread->tid());
  }
}

Thread& compel_task::thread(pid_t tid) {
  const auto found = by_tid_.find(tid == 0 ? pid_ : tid);
  if (found == by_tid_.end() || released_) {
    throw Gone("find", "thread " + std::to_string(tid == 0 ? pid_ : tid) + " of task " + std::to_string(pid_), ESRCH,
               tid == 0 ? "the leader of the task has exited" : "no such thread is seized");
  }
  if (found->second->gone()) {
    throw Gone("enter", found->second->describe(), ESRCH, "it died meanwhile");
  }
  return *found->second;
}

int compel_task::memory() {
  if (!memory_) {
    const std::string path = "/proc/" + std::to_string(pid_) + "/mem";
    memory_.reset(base::check(::open(path.c_str(), O_RDWR | O_CLOEXEC), "open", path));
  }
  return memory_.get();
}

compel::Stub compel_task::place_stub(Thread& thread, std::uint64_t unmap_base) {
  const user_regs_struct home = thread.stub_registers();
  return stubs_.place(pid_, memory(), threads_, compel::make_stub(home, thread.saved().mask, unmap_base));
}

// Entry and exit of the call that the stub makes, and the same again when it was interrupted and starts anew.
static std::int64_t catch_result(Thread& thread) {
  for (bool entered = false;;) {
    if (thread.next(PTRACE_SYSCALL).kind != Stop::system_call) {
      continue;
    }
    entered = !entered;
    if (!entered) {
      const user_regs_struct after = thread.current_registers();
      if (!arch::restarting(after)) {
        return static_cast<std::int64_t>(after.rax);
      }
    }
  }
}

static bool failed(std::int64_t result) { return result < 0 && result > -4096; }

std::int64_t compel_task::run_syscall(Thread& thread, long number, const std::uint64_t arguments[6]) {
  if (parasite != nullptr && parasite->inside(thread)) {
    throw base::Error("run a system call", thread.describe(), EBUSY, "it is inside a resident parasite");
  }
  compel::Stub stub = place_stub(thread, 0);
  thread.borrow(arch::stub_home(thread.saved().home, stub.address()));
  thread.set_registers(arch::stub_call(thread.saved().home, stub.address(), number, arguments));
  try {
    const std::int64_t result = catch_result(thread);
    // Its own registers must be set in a trap stop: there the kernel still looks at what an interrupted call is to do.
    thread.interrupt();
    while (thread.next(PTRACE_CONT).kind != Stop::trap) {
    }
    thread.give_back(stub.address());
    return result;
  } catch (const compel::Crash&) {
    // SIGSYS: a filter that we may not suspend, or syscall user dispatch, has refused the call.
    thread.stop_crashed();
    thread.give_back(stub.address());
    throw;
  }
}

// A trap that is asked for at the entry of a call comes when the call is done: neither its exit nor a stop of its own
// is needed for that.
std::int64_t compel_task::run_quick(Thread& thread, std::size_t count,
                                    const std::function<Call(std::size_t, std::int64_t)>& make) {
  compel::Stub stub = place_stub(thread, 0);
  thread.borrow(arch::stub_home(thread.saved().home, stub.address()));
  std::int64_t result = 0;
  try {
    for (std::size_t i = 0; i < count && !failed(result); ++i) {
      const Call call = make(i, result);
      thread.set_registers(arch::stub_call(thread.saved().home, stub.address(), call.number, call.arguments));
      while (thread.next(PTRACE_SYSCALL).kind != Stop::system_call) {
      }
      if (i + 1 < count) {
        while (thread.next(PTRACE_SYSCALL).kind != Stop::system_call) {
        }
        result = static_cast<std::int64_t>(thread.current_registers().rax);
      }
    }
    thread.interrupt();
    while (thread.next(PTRACE_CONT).kind != Stop::trap) {
    }
    result = failed(result) ? result : static_cast<std::int64_t>(thread.current_registers().rax);
    thread.give_back(stub.address());
    return result;
  } catch (const compel::Crash&) {
    thread.stop_crashed();
    thread.give_back(stub.address());
    throw;
  }
}

int compel_task::take_fd(int remote_fd) {
  if (!pidfd_) {
    pidfd_.reset(
        base::check(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)), "pidfd_open", procfs::describe(pid_)));
  }
  return base::check(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd_.get(), remote_fd, 0)), "take descriptor",
                     "fd " + std::to_string(remote_fd) + " of " + procfs::describe(pid_));
}

void compel_task::kill_threads() noexcept {
  if (!released_ && !threads_.empty()) {
    ::kill(pid_, SIGKILL);
  }
}

// The last thread frees the memory of a process, a gigabyte in a tenth of a second. Two are faster.
void compel_task::help_dying() noexcept {
  constexpr std::uint64_t much = 16384;  // pages
  const auto resident = directory_.resident();
  if (released_ || threads_.empty() || resident < much) {
    return;
  }
  const base::Fd process(pidfd_ ? -1 : static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  ::syscall(SYS_process_mrelease, pidfd_ ? pidfd_.get() : process.get(), 0);  // whoever may not, leaves it to the task
}

void compel_task::reap() noexcept {
  if (released_) {
    return;
  }
  // The leader last: it is not reported before the others are gone.
  for (auto thread = threads_.rbegin(); thread != threads_.rend(); ++thread) {
    (*thread)->reap_killed();
  }
  if (parasite != nullptr) {
    parasite->abandon();
  }
  released_ = true;
}

void compel_task::release(compel_final final_state) {
  if (released_) {
    return;
  }
  if (final_state == COMPEL_KILL) {
    kill_threads();
    reap();
    return;
  }
  std::exception_ptr failure;
  if (parasite != nullptr) {
    try {
      parasite->unload();
    } catch (const Gone&) {
    } catch (...) {
      failure = std::current_exception();
    }
  }
  if (final_state == COMPEL_STOP && !threads_.empty()) {
    ::kill(pid_, SIGSTOP);
  }
  // The leader last: if all were killed meanwhile, its end is not reported before the others are reaped.
  for (auto thread = threads_.rbegin(); thread != threads_.rend(); ++thread) {
    if (!(*thread)->detach()) {
      stragglers.push_back(std::move(*thread));
    }
  }
  released_ = true;
  if (failure) {
    std::rethrow_exception(failure);
  }
}
