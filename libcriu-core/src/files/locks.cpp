// SPDX-License-Identifier: LGPL-2.1-only
#include "files/locks.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <unordered_map>

#include "base/error.hpp"
#include "files/owner.hpp"
#include "files/saver.hpp"
#include "kernel/fdinfo_marks.hpp"
#include "restore_context.hpp"
#include "restorer/builder.hpp"

namespace criu::files {

using base::check;
using base::Error;
using kernel::FileLock;

namespace {

// The numbers of the format.
enum Flag : std::uint32_t { posix = 1, flock = 2, ofd = 4, lease = 8 };
constexpr std::uint32_t breaking = 4;  // in the type of a lease

std::uint32_t flag_of(FileLock::Kind kind) {
  return kind == FileLock::Kind::posix   ? Flag::posix
         : kind == FileLock::Kind::flock ? Flag::flock
         : kind == FileLock::Kind::ofd   ? Flag::ofd
                                         : Flag::lease;
}

std::uint32_t type_of(const FileLock& lock) {
  return lock.mandatory != 0 ? static_cast<std::uint32_t>(lock.mandatory)
                             : static_cast<std::uint32_t>(lock.type) | (lock.breaking ? breaking : 0);
}

}  // namespace

void LockSaver::collect(const DumpContext& dump, Holder holder, std::uint32_t file_id, std::uint32_t table,
                        const kernel::FdInfo& info, const std::string& what) {
  if (!dump.options.file_locks) {
    throw Error("cannot dump",
                fmt::format("{} holds a file lock ({})", what, kernel::field(info.text, "lock").value_or("")), 0,
                "--file-locks saves them");
  }
  for (const auto& lock : kernel::file_locks(info.text)) {
    const auto flag = flag_of(lock.kind);
    auto [known, is_new] = locks_.try_emplace({flag, flag == Flag::posix ? table : 0, file_id, lock.start});
    auto& entry = known->second;
    if (is_new) {
      entry.set_flag(flag);
      entry.set_type(type_of(lock));
      entry.set_start(lock.start);
      entry.set_len(lock.length);
    }
    // Any task that has the description will do, but best is the one that the kernel names.
    if (is_new || (lock.pid == holder.pid && entry.pid() != holder.pid)) {
      entry.set_pid(holder.pid);
      entry.set_fd(holder.fd);
    }
  }
}

void LockSaver::save(Saver& saver) const {
  for (const auto& [key, entry] : locks_) {
    saver.image(image::type::file_locks).write(entry);
  }
}

// ---- restore

namespace {

void check_lock(const images::file_lock_entry& entry, const std::string& what) {
  const auto flag = entry.flag();
  const bool flock_type = flag == Flag::flock && (entry.type() & LOCK_MAND) != 0;
  const bool lease_type = flag == Flag::lease && (entry.type() & breaking) != 0;
  const auto type = lease_type ? entry.type() & ~breaking : entry.type();
  const bool known = flag == Flag::posix || flag == Flag::flock || flag == Flag::ofd || flag == Flag::lease;
  if (!known || (type > F_UNLCK && !flock_type) || (type == F_UNLCK && !lease_type) || entry.start() < 0 ||
      entry.len() < 0) {
    throw Error("corrupt checkpoint", fmt::format("filelocks.img: {}: flag {}, type {}", what, flag, entry.type()), 0);
  }
}

// What a lease was before somebody else opened the file: the kernel tells only what it is to become.
std::uint32_t before_break(std::uint32_t target, std::uint32_t file_flags) {
  return target == F_RDLCK || (file_flags & O_ACCMODE) != O_RDONLY ? F_WRLCK : F_RDLCK;
}

restorer::FileLock planned(const images::file_lock_entry& entry, std::uint32_t file_flags) {
  restorer::FileLock lock{};
  lock.fd = entry.fd();
  lock.start = entry.start();
  lock.length = entry.len();
  lock.type = static_cast<std::int16_t>(entry.type());
  switch (entry.flag()) {
    case Flag::posix:
      lock.command = F_SETLK;
      break;
    case Flag::ofd:
      lock.command = F_OFD_SETLK;
      break;
    case Flag::lease:
      lock.command = F_SETLEASE;
      if ((entry.type() & breaking) != 0) {
        lock.type = static_cast<std::int16_t>(before_break(entry.type() & ~breaking, file_flags));
      }
      break;
    default:
      lock.command = restorer::FileLock::whole;
      lock.type = static_cast<std::int16_t>((entry.type() & LOCK_MAND) != 0 ? entry.type()
                                            : entry.type() == F_RDLCK       ? LOCK_SH | LOCK_NB
                                                                            : LOCK_EX | LOCK_NB);
  }
  return lock;
}

}  // namespace

Locks::Locks(const RestoreContext& context) {
  auto reader = context.images.open(image::type::file_locks);
  images::file_lock_entry entry;
  std::unordered_map<pid_t, const TaskImage*> tasks;
  std::map<std::pair<pid_t, std::uint32_t>, std::uint32_t> flags;  // of what each task has open, once it is asked for
  while (reader && reader->next(entry)) {
    if (!context.options.file_locks) {
      throw Error("cannot restore", fmt::format("task {} holds a file lock by fd {}", entry.pid(), entry.fd()), 0,
                  "--file-locks takes them again");
    }
    const auto what = fmt::format("a lock of fd {} of task {}", entry.fd(), entry.pid());
    check_lock(entry, what);
    if (tasks.empty()) {
      for (const auto& task : context.checkpoint.tasks) {
        tasks[task->pid()] = task.get();
      }
    }
    const auto task = tasks.find(entry.pid());
    if (task == tasks.end()) {
      throw Error("corrupt checkpoint", fmt::format("filelocks.img: {}: there is no such task", what), 0);
    }
    auto& locks = by_task_[entry.pid()];
    if (locks.empty()) {
      // A table that a parent made is there, too.
      const auto* owner = task->second;
      while (owner->shares_files()) {
        owner = owner->parent;
      }
      for (const auto& fd : owner->fds) {
        const auto* file = context.checkpoint.find_file(fd.type(), fd.id());
        flags[{entry.pid(), fd.fd()}] = file != nullptr ? file->reg().flags() : 0;
      }
    }
    const auto open = flags.find({entry.pid(), static_cast<std::uint32_t>(entry.fd())});
    if (open == flags.end()) {
      throw Error("corrupt checkpoint", fmt::format("filelocks.img: {}: it is not open", what), 0);
    }
    locks.push_back({entry, open->second});
  }
}

void Locks::plan(const TaskImage& task, restorer::Builder& builder) const {
  const auto found = by_task_.find(task.pid());
  if (found == by_task_.end()) {
    return;
  }
  std::vector<restorer::FileLock> locks;
  for (const auto& [entry, file_flags] : found->second) {
    locks.push_back(planned(entry, file_flags));
  }
  const auto ref = builder.add(locks);
  builder.plan().locks = ref;
  builder.plan().lock_count = static_cast<std::uint32_t>(locks.size());
}

namespace {

// As whoever opened the file did, but without waiting. Its owner was told then; not again.
void break_lease(int fd, std::uint32_t target, const std::string& what) {
  images::fown_entry owner;
  read_owner(fd, owner);
  f_owner_ex nobody{F_OWNER_PID, 0};
  check(::fcntl(fd, F_SETOWN_EX, &nobody), "set the owner of", what);
  const int mode = target == F_RDLCK ? O_RDONLY : O_WRONLY;
  const base::Fd other(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), mode | O_NONBLOCK | O_CLOEXEC));
  if (other || errno != EWOULDBLOCK) {
    throw Error("break the lease of", what, other ? 0 : errno);
  }
  restore_owner(fd, owner);
}

}  // namespace

void Locks::break_leases(const RestoreContext& context) const {
  for (const auto& [pid, locks] : by_task_) {
    for (const auto& [entry, file_flags] : locks) {
      if (entry.flag() != Flag::lease || (entry.type() & breaking) == 0) {
        continue;
      }
      const auto what = fmt::format("fd {} of task {}", entry.fd(), pid);
      const base::Fd pidfd(static_cast<int>(check(::syscall(SYS_pidfd_open, pid, 0), "open pidfd for", what)));
      const auto fd = context.internal(
          base::Fd(static_cast<int>(check(::syscall(SYS_pidfd_getfd, pidfd.get(), entry.fd(), 0), "fetch", what))));
      break_lease(fd.get(), entry.type() & ~breaking, what);
    }
  }
}

}  // namespace criu::files
