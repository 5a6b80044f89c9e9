// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/ipc.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "namespaces/ipc_queues.hpp"
#include "namespaces/ipc_variables.hpp"
#include "namespaces/user.hpp"
#include "restore_context.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

base::Fd current_ipc() {
  return base::Fd(check(::open("/proc/thread-self/ns/ipc", O_RDONLY | O_CLOEXEC), "open", "the own IPC namespace"));
}

// A segment that nobody has attached lives as long as who made it, and that would be us.
void refuse_orphans(DumpContext& dump, const images::ipc_var_entry& variables) {
  shm_info info{};
  if (variables.shm_rmid_forced() != 0 && ::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info)) >= 0 &&
      static_cast<std::size_t>(info.used_ids) > dump.segments.all().size()) {
    dump.obstacles.emplace_back("cannot dump", "a System V segment that no task has attached", 0,
                                "with kernel.shm_rmid_forced it is bound to the process that made it");
  }
}

// POSIX message queues are files of a filesystem that each namespace has; it is looked at without a place in any tree
// of mounts.
void refuse_posix_queues(DumpContext& dump) {
  const base::Fd context(static_cast<int>(::syscall(SYS_fsopen, "mqueue", FSOPEN_CLOEXEC)));
  if (!context) {
    return;  // a kernel without them
  }
  check(::syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), "look at",
        "POSIX message queues");
  const base::Fd mount(static_cast<int>(
      check(::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, 0), "look at", "POSIX message queues")));
  // What fsmount gives is a place alone, which cannot be read.
  base::Fd root(
      check(::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "look at", "POSIX message queues"));
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::fdopendir(root.get()), ::closedir);
  if (directory == nullptr) {
    throw Error("list", "POSIX message queues", errno);
  }
  root.release();
  while (const auto* entry = ::readdir(directory.get())) {
    if (entry->d_name[0] != '.') {
      dump.obstacles.emplace_back(
          "not supported by this version",
          fmt::format("the POSIX message queue /{} in the IPC namespace of the tree", entry->d_name), 0,
          "its messages cannot be looked at without taking them out");
    }
  }
}

void save_own(DumpContext& dump, memory::ObjectSaver& objects, std::uint32_t id) {
  const auto variables = read_variables();
  refuse_orphans(dump, variables);
  refuse_posix_queues(dump);
  dump.images.put(image::type::ipc_var, id, variables);
  save_segments(dump, objects, id, true);
  save_message_queues(dump, id);
  save_semaphores(dump, id);
}

bool has_segments(const Checkpoint& checkpoint) {
  return std::any_of(checkpoint.tasks.begin(), checkpoint.tasks.end(), [](const auto& task) {
    return std::any_of(task->mm.vmas().begin(), task->mm.vmas().end(),
                       [](const auto& vma) { return (vma.status() & memory::sysv_ipc) != 0; });
  });
}

}  // namespace

InsideIpc::InsideIpc(int ns) : before_(current_ipc()) {
  check(::setns(ns, CLONE_NEWIPC), "enter", "the IPC namespace of the tree");
}

InsideIpc::~InsideIpc() {
  if (before_) {
    ::setns(before_.get(), CLONE_NEWIPC);
  }
}

void save_ipc(DumpContext& dump, memory::ObjectSaver& objects, const procfs::Task& root,
              const images::task_kobj_ids_entry& root_ids, const images::task_kobj_ids_entry& own_ids) {
  if (!root_ids.has_ipc_ns_id()) {
    return;  // the root itself is in the way
  }
  const auto id = root_ids.ipc_ns_id();
  if (id == own_ids.ipc_ns_id()) {
    if (!dump.segments.all().empty()) {
      save_segments(dump, objects, id, false);
    }
    return;
  }
  const auto ns = root.open("ns/ipc", O_RDONLY);
  const InsideIpc inside(ns.get());
  save_own(dump, objects, id);
}

RestoredIpc::RestoredIpc(const RestoreContext& context) : users_(context.users) {
  const auto& ids = context.checkpoint.root().ids;
  const auto id = ids.ipc_ns_id();
  if (id == context.checkpoint.inventory.root_ids().ipc_ns_id()) {
    if (has_segments(context.checkpoint)) {
      segments_.restore(context, id, false);
    }
    return;
  }
  const auto before = current_ipc();
  struct Back {
    int ns;
    ~Back() { ::setns(ns, CLONE_NEWIPC); }
  } const back{before.get()};
  users_->run([&] {
    check(::unshare(CLONE_NEWIPC), "make", "an IPC namespace");
    own_ = context.internal(current_ipc());
    make(context, id);
  });
}

void RestoredIpc::make(const RestoreContext& context, std::uint32_t ns_id) {
  context.images.require(image::type::ipc_var, ns_id).only(variables_);
  raise_limits(variables_);
  segments_.restore(context, ns_id, true);
  restore_message_queues(context, ns_id);
  restore_semaphores(context, ns_id);
  write_variables(variables_);
}

void RestoredIpc::settle() const {
  const auto inside = enter();
  users_->run([this] {
    segments_.remove_removed();
    if (own_) {
      force_removal(variables_);
    }
  });
}

}  // namespace criu::namespaces
