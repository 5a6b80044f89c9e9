// SPDX-License-Identifier: LGPL-2.1-only
#include "task/ids.hpp"

#include <fmt/format.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.hpp"

namespace criu::task {

Ids::Ids(const namespaces::Links& ours) : vm_{KCMP_VM}, files_{KCMP_FILES}, fs_{KCMP_FS}, sighand_{KCMP_SIGHAND} {
  put_objects(::getpid(), own_);
  put_namespaces(ours, own_);
}

// The kernel gives an order, not only equality, so that n objects take n log n questions, each a system call.
std::uint32_t Ids::object_id(Objects& objects, pid_t pid, pid_t& owner) {
  constexpr long equal = 0, less = 1;
  auto& known = objects.known;
  std::size_t from = 0, to = known.size();
  while (from < to) {
    const auto middle = from + (to - from) / 2;
    const auto other = known[middle].first;
    const auto order = pid == other
                           ? equal
                           : base::check(::syscall(SYS_kcmp, pid, other, objects.type, 0, 0),
                                         "compare kernel objects of", fmt::format("tasks {} and {}", pid, other));
    if (order == equal) {
      owner = other;
      return known[middle].second;
    }
    (order == less ? to : from) = order == less ? middle : middle + 1;
  }
  owner = pid;
  const auto number = static_cast<std::uint32_t>(known.size()) + 1;
  known.emplace(known.begin() + static_cast<std::ptrdiff_t>(from), pid, number);
  return number;
}

void Ids::put_objects(pid_t pid, images::task_kobj_ids_entry& ids) {
  auto& owners = owners_[pid];
  ids.set_vm_id(object_id(vm_, pid, owners.vm));
  ids.set_files_id(object_id(files_, pid, owners.files));
  ids.set_fs_id(object_id(fs_, pid, owners.fs));
  ids.set_sighand_id(object_id(sighand_, pid, owners.sighand));
}

void Ids::put_namespaces(const namespaces::Links& links, images::task_kobj_ids_entry& ids) {
  const auto number = [&](const char* name) { return number_of(links.at(name)); };
  ids.set_pid_ns_id(number("pid"));
  ids.set_net_ns_id(number("net"));
  ids.set_ipc_ns_id(number("ipc"));
  ids.set_uts_ns_id(number("uts"));
  ids.set_time_ns_id(number("time"));
  ids.set_mnt_ns_id(number("mnt"));
  ids.set_user_ns_id(number("user"));
  ids.set_cgroup_ns_id(number("cgroup"));
}

images::task_kobj_ids_entry Ids::of(pid_t pid, const procfs::Task& task) {
  images::task_kobj_ids_entry ids;
  put_objects(pid, ids);
  put_namespaces(namespaces::links_of(task), ids);
  if (!root_.has_vm_id()) {
    root_ = ids;
  }
  return ids;
}

// A table of descriptors may be shared with the parent. Nothing in a restore would make anything else so again.
std::string Ids::in_common(pid_t pid, pid_t parent) const {
  const auto& owners = owners_.at(pid);
  if (owners.vm != pid) {
    return fmt::format("its memory with task {}", owners.vm);
  }
  if (owners.sighand != pid) {
    return fmt::format("its signal actions with task {}", owners.sighand);
  }
  if (owners.fs != pid) {
    return fmt::format("its working directory and umask with task {}", owners.fs);
  }
  if (owners.files != pid) {
    const auto of_parent = owners_.find(parent);
    if (of_parent == owners_.end() || of_parent->second.files != owners.files) {
      return fmt::format("its descriptors with task {}, which is not its parent,", owners.files);
    }
  }
  return {};
}

// A thread usually has its process's descriptors and directories; unshare(2) gives it its own, of which the format
// knows nothing.
std::string apart_from_process(pid_t pid, pid_t tid) {
  const auto differs = [&](int type) {
    return base::check(::syscall(SYS_kcmp, pid, tid, type, 0, 0), "compare kernel objects of",
                       fmt::format("threads {} and {}", pid, tid)) != 0;
  };
  return differs(KCMP_FILES) ? "descriptors" : differs(KCMP_FS) ? "a working directory and umask" : "";
}

bool is_known_policy(int policy) {
  const auto kind = policy & ~SCHED_RESET_ON_FORK;
  return kind == SCHED_FIFO || kind == SCHED_RR || kind == SCHED_OTHER || kind == SCHED_BATCH || kind == SCHED_IDLE;
}

std::string namespaces_apart(const images::task_kobj_ids_entry& task, const images::task_kobj_ids_entry& root,
                             const images::task_kobj_ids_entry& own) {
  std::string all;
  const auto note = [&all](bool differs, const char* kind) {
    if (differs) {
      all += (all.empty() ? "" : ", ") + std::string(kind);
    }
  };
  note(task.pid_ns_id() != root.pid_ns_id(), "pid");
  note(task.uts_ns_id() != root.uts_ns_id(), "UTS");
  note(task.ipc_ns_id() != root.ipc_ns_id(), "IPC");
  note(task.mnt_ns_id() != root.mnt_ns_id() && root.mnt_ns_id() == own.mnt_ns_id(), "mount");
  note(task.cgroup_ns_id() != root.cgroup_ns_id(), "control group");
  note(task.net_ns_id() != root.net_ns_id(), "network");
  note(task.user_ns_id() != root.user_ns_id(), "user");
  return all;
}

base::Error other_namespaces(const std::string& task, const std::string& which) {
  return {"cannot dump", task, 0,
          fmt::format("it has namespaces of its own ({}), which this version does not dump; run the dump inside them",
                      which)};
}

base::Error is_32_bit(const std::string& task) {
  return {"cannot dump", task, 0, "32-bit tasks are not supported by this version"};
}

base::Error leader_ended(const std::string& task) {
  return {"cannot dump", task, 0, "its first thread has ended before the others, which the image format cannot say"};
}

base::Error unknown_policy(pid_t tid, int policy) {
  return {"cannot dump", fmt::format("scheduling policy {} of thread {}", policy & ~SCHED_RESET_ON_FORK, tid), 0,
          "the image format knows no such policy"};
}

base::Error shares(const std::string& task, const std::string& what) {
  return {"cannot dump", task, 0, fmt::format("it shares {}, which this version does not restore", what)};
}

base::Error apart(const std::string& task, pid_t tid, const std::string& what) {
  return {"cannot dump", fmt::format("thread {} of {}", tid, task), 0,
          fmt::format("it has {} of its own, which the image format cannot say", what)};
}

base::Error no_session_leader(const std::string& task, pid_t session) {
  return {"cannot dump",
          fmt::format("{} is no session leader: its session {} is led from outside the tree", task, session), 0,
          "--shell-job allows it; started with setsid it would lead one"};
}

}  // namespace criu::task
