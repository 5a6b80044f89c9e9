// SPDX-License-Identifier: LGPL-2.1-only
#include "task/undo.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kcmp.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "namespaces/ipc.hpp"
#include "task/checkpoint.hpp"

namespace criu::task {

using base::check;
using base::Error;

namespace {

constexpr std::int32_t largest_value = 32767;  // SEMVMX, and SEMAEM, the bound of adjustments

union SemArgument {
  int value;
  semid_ds* set;
  seminfo* info;
};

struct Set {
  int id;
  std::uint32_t size;
};

struct Sets {
  std::vector<Set> all;
  std::uint32_t operations_at_once = 0;
};

Sets list_sets() {
  seminfo info{};
  SemArgument argument{};
  argument.info = &info;
  Sets sets;
  const int last = ::semctl(0, 0, SEM_INFO, argument);
  sets.operations_at_once = static_cast<std::uint32_t>(std::max(info.semopm, 0));
  for (int index = 0; last >= 0 && info.semusz > 0 && index <= last; ++index) {
    semid_ds set{};
    argument.set = &set;
    if (const int id = ::semctl(index, 0, SEM_STAT, argument); id >= 0) {
      sets.all.push_back({id, static_cast<std::uint32_t>(set.sem_nsems)});
    }
  }
  return sets;
}

bool share_undo(pid_t a, pid_t b) {
  return check(::syscall(SYS_kcmp, a, b, KCMP_SYSVSEM, 0, 0), "compare the semaphore adjustments of",
               fmt::format("tasks {} and {}", a, b)) == 0;
}

// A process that has no list of adjustments, to compare with: we have one ourselves since we have threads.
class Nobody {
 public:
  Nobody() : pid_(::fork()) {
    check(pid_, "fork");
    if (pid_ == 0) {
      ::_exit(0);
    }
    siginfo_t info;
    ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
  }
  ~Nobody() { ::waitpid(pid_, nullptr, 0); }
  Nobody(const Nobody&) = delete;
  Nobody& operator=(const Nobody&) = delete;
  bool is_like(pid_t pid) const { return share_undo(pid_, pid); }

 private:
  pid_t pid_;
};

class UndoSaver {
 public:
  UndoSaver(DumpContext& dump, FrozenTree& tree, Sets sets, bool own)
      : dump_(dump), tree_(tree), sets_(std::move(sets)), own_(own) {}

  void save(std::size_t index, images::mm_entry& mm) {
    const auto& task = tree_.tasks()[index];
    if (nobody_.is_like(task.pid)) {
      return refuse_threads(task, [this](pid_t tid) { return !nobody_.is_like(tid); });
    }
    refuse_threads(task, [&](pid_t tid) { return !share_undo(task.pid, tid) && !nobody_.is_like(tid); });
    for (const auto& set : sets_.all) {
      ask(index, task, set, mm);
    }
    if (mm.extension().semaphore_undo_size() > 0) {
      refuse_sharing(task);
    }
  }

 private:
  template <typename Differs>
  static void refuse_threads(const FrozenTask& task, Differs differs) {
    for (std::size_t i = 1; i < task.tids.size(); ++i) {
      if (differs(task.tids[i])) {
        throw Error("cannot dump", fmt::format("thread {} of task {}", task.tids[i], task.pid), 0,
                    "it has semaphore adjustments (SEM_UNDO) of its own, apart from its process");
      }
    }
  }

  void refuse_sharing(const FrozenTask& task) {
    for (const auto other : adjusted_) {
      if (share_undo(task.pid, other)) {
        throw Error("cannot dump", fmt::format("task {}", task.pid), 0,
                    fmt::format("it shares its semaphore adjustments (SEM_UNDO) with task {}", other));
      }
    }
    adjusted_.push_back(task.pid);
  }

  // Who may not change a set has changed it no time before either, unless it once had more rights.
  bool has_operated(pid_t pid, const Set& set) const {
    for (std::uint32_t number = 0; number < set.size; ++number) {
      if (::semctl(set.id, static_cast<int>(number), GETPID) == pid) {
        return true;
      }
    }
    return false;
  }

  void ask(std::size_t index, const FrozenTask& task, const Set& set, images::mm_entry& mm) {
    std::vector<std::int16_t> adjustments;
    try {
      adjustments = tree_.query_undo(index, set.id, set.size, sets_.operations_at_once);
    } catch (const Error& error) {
      if (error.code() == EACCES && !has_operated(task.pid, set)) {
        return;
      }
      if (error.code() == EIDRM || error.code() == EINVAL) {
        return;  // removed meanwhile, from outside
      }
      throw;
    }
    for (std::uint32_t number = 0; number < set.size; ++number) {
      if (adjustments[number] == 0) {
        continue;
      }
      if (!own_) {
        throw Error(
            "cannot dump", fmt::format("task {}", task.pid), 0,
            fmt::format("its end would give back semaphore {} of set {} (SEM_UNDO), which others may take then; "
                        "in an IPC namespace of its own it can be dumped",
                        number, set.id));
      }
      auto& undo = *mm.mutable_extension()->add_semaphore_undo();
      undo.set_set(static_cast<std::uint32_t>(set.id));
      undo.set_number(number);
      undo.set_adjustment(adjustments[number]);
    }
  }

  DumpContext& dump_;
  FrozenTree& tree_;
  Sets sets_;
  bool own_;
  Nobody nobody_;
  std::vector<pid_t> adjusted_;
};

// Moves the adjustment and leaves the value as it is; see the parasite, which asks in the same way.
std::vector<sembuf> operations(std::uint16_t number, std::int32_t value, std::int32_t adjustment) {
  const bool down_first = value >= largest_value - value;
  const std::int32_t room = down_first ? value : largest_value - value;
  const bool first_counts = down_first == (adjustment > 0);
  std::vector<sembuf> result;
  for (std::int32_t left = std::abs(adjustment); left > 0;) {
    const auto step = static_cast<short>(std::min(left, room));
    const auto first = static_cast<short>(down_first ? -step : step);
    result.push_back({number, first, static_cast<short>(IPC_NOWAIT | (first_counts ? SEM_UNDO : 0))});
    result.push_back(
        {number, static_cast<short>(-first), static_cast<short>(IPC_NOWAIT | (first_counts ? 0 : SEM_UNDO))});
    left -= step;
  }
  return result;
}

}  // namespace

void save_undo(DumpContext& dump, FrozenTree& tree, const Ids& ids, std::vector<SavedTask>& saved) {
  if (!ids.root().has_ipc_ns_id()) {
    return;
  }
  const bool own = ids.root().ipc_ns_id() != ids.own().ipc_ns_id();
  base::Fd ns;
  if (own) {
    ns = procfs::Task(tree.tasks().front().pid).open("ns/ipc", O_RDONLY);
  }
  const auto inside = own ? namespaces::InsideIpc(ns.get()) : namespaces::InsideIpc();
  auto sets = list_sets();
  if (sets.all.empty()) {
    return;
  }
  UndoSaver saver(dump, tree, std::move(sets), own);
  for (std::size_t i = 0; i < tree.tasks().size(); ++i) {
    if (tree.tasks()[i].state != TaskState::dead) {
      dump.attempt([&] { saver.save(i, saved[i].mm); });
    }
  }
}

void restore_undo(const TaskImage& task) {
  for (const auto& undo : task.mm.extension().semaphore_undo()) {
    const auto what = fmt::format("semaphore {} of set {} for {}", undo.number(), undo.set(), task.name());
    const int set = static_cast<int>(undo.set());
    const auto value = check(::semctl(set, static_cast<int>(undo.number()), GETVAL), "look at", what);
    if (std::abs(undo.adjustment()) > largest_value + 1 || undo.number() > 0xffff) {
      throw Error("corrupt checkpoint", what, 0);
    }
    auto list = operations(static_cast<std::uint16_t>(undo.number()), value, undo.adjustment());
    check(::semop(set, list.data(), list.size()), "adjust", what);
  }
}

}  // namespace criu::task
