// SPDX-License-Identifier: LGPL-2.1-only
#include "task/ids.hpp"

#include <fmt/format.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.hpp"

namespace criu::task {

// The kernel gives an order, not only equality, so that n objects take n log n questions.
bool Ids::Order::operator()(pid_t a, pid_t b) const {
  if (a == b) {
    return false;
  }
  const auto result = base::check(::syscall(SYS_kcmp, a, b, type, 0, 0), "compare kernel objects of",
                                  fmt::format("tasks {} and {}", a, b));
  return result == 1;
}

Ids::Ids(const namespaces::Links& ours)
    : vm_(Order{KCMP_VM}), files_(Order{KCMP_FILES}), fs_(Order{KCMP_FS}), sighand_(Order{KCMP_SIGHAND}) {
  put_objects(::getpid(), own_);
  put_namespaces(ours, own_);
}

std::uint32_t Ids::object_id(Objects& objects, pid_t pid) const {
  return objects.emplace(pid, static_cast<std::uint32_t>(objects.size()) + 1).first->second;
}

void Ids::put_objects(pid_t pid, images::task_kobj_ids_entry& ids) {
  ids.set_vm_id(object_id(vm_, pid));
  ids.set_files_id(object_id(files_, pid));
  ids.set_fs_id(object_id(fs_, pid));
  ids.set_sighand_id(object_id(sighand_, pid));
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
  const auto first = [pid](const Objects& objects) {
    const auto found = objects.find(pid);
    return found == objects.end() || found->first == pid ? 0 : found->first;
  };
  if (const auto other = first(vm_); other != 0) {
    return fmt::format("its memory with task {}", other);
  }
  if (const auto other = first(sighand_); other != 0) {
    return fmt::format("its signal actions with task {}", other);
  }
  if (const auto other = first(fs_); other != 0) {
    return fmt::format("its working directory and umask with task {}", other);
  }
  if (const auto other = first(files_); other != 0) {
    const auto of_parent = files_.find(parent);
    if (of_parent == files_.end() || of_parent->first != other) {
      return fmt::format("its descriptors with task {}, which is not its parent,", other);
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
  note(task.user_ns_id() != own.user_ns_id(), "user");
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
