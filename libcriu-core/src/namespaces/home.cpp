// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/home.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <vector>

#include "base/error.hpp"
#include "kernel/mounts.hpp"
#include "namespaces/tarball.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

Links links_of(const procfs::Task& task) {
  Links links;
  for (const char* name : {"pid", "net", "ipc", "uts", "time", "mnt", "user", "cgroup"}) {
    links[name] = task.link(fmt::format("ns/{}", name).c_str());
  }
  return links;
}

Home::Home(pid_t root) : root_(root), ours_(links_of(procfs::Task(::getpid()))), root_there_(root) {
  if (::kill(root, 0) != 0 && errno == ESRCH) {
    throw Error("cannot dump", fmt::format("task {}", root), ESRCH);
  }
  const procfs::Task task(root);
  theirs_ = links_of(task);
  if (apart("user")) {
    if (const auto foreign = foreign_namespaces(task); !foreign.empty()) {
      throw Error("cannot dump", fmt::format("task {} has a user namespace of its own", root), 0,
                  fmt::format("this version dumps one together with namespaces that belong to it, and these do not: {}",
                              foreign));
    }
    users_ = Users(task);
    mount_sources_.users = &users_;
  }
  if (apart("net")) {
    network_ = task.open("ns/net", O_RDONLY | O_CLOEXEC);
  }
  if (apart("pid")) {
    pidfd_ = base::Fd(
        static_cast<int>(check(::syscall(SYS_pidfd_open, root, 0), "open a pidfd of", fmt::format("task {}", root))));
    root_there_ = procfs::parse_status(task.read("status")).ns_pid.back();
    if (root_there_ != 1) {
      throw Error("cannot dump", fmt::format("task {} is {} in a pid namespace of its own", root, root_there_), 0,
                  "a tree that is apart has to be dumped from its init on, or from inside that namespace");
    }
  }
}

namespace {

struct Entrance {
  base::Fd fd;
  int flag;
};

// Their own descriptors, as our /proc is out of sight in other mounts.
std::vector<Entrance> entrances(const procfs::Task& root, const Links& ours, const Links& theirs) {
  std::vector<Entrance> entrances;
  for (const auto& [name, flag] : {std::pair{"net", CLONE_NEWNET}, std::pair{"cgroup", CLONE_NEWCGROUP},
                                   std::pair{"uts", CLONE_NEWUTS}, std::pair{"mnt", CLONE_NEWNS}}) {
    if (ours.at(name) != theirs.at(name)) {
      entrances.push_back({root.open(fmt::format("ns/{}", name).c_str(), O_RDONLY | O_CLOEXEC), flag});
    }
  }
  return entrances;
}

}  // namespace

namespace {

// Whether /proc is the kernel's and shows the pids of this process's namespace, all of it. Nothing is mounted over what
// it says of processes, either.
bool proc_is_good() {
  struct statfs fs {};
  char self[16] = {};
  if (::statfs("/proc", &fs) != 0 || fs.f_type != PROC_SUPER_MAGIC || ::access("/proc/sys/kernel", F_OK) != 0 ||
      ::readlink("/proc/self", self, sizeof self - 1) <= 0 || std::to_string(::getpid()) != self) {
    return false;
  }
  constexpr std::string_view below = "/proc/";
  const auto mounts = kernel::parse_mountinfo(procfs::Task(::getpid()).read("mountinfo"));
  return std::none_of(mounts.begin(), mounts.end(), [&](const kernel::Mount& mount) {
    return mount.point.starts_with(below) && mount.point.size() > below.size() &&
           (std::isdigit(static_cast<unsigned char>(mount.point[below.size()])) != 0 ||
            mount.point.starts_with("/proc/self") || mount.point.starts_with("/proc/thread-self"));
  });
}

}  // namespace

void see_own_proc() {
  check(::unshare(CLONE_NEWNS), "copy the mount namespace of the tree");
  check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make a copy of mounts private");
  check(::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr), "mount", "/proc",
        "this directory is needed among the mounts of a tree in a pid namespace of its own");
}

pid_t fork_into(int pid_namespace, const std::function<pid_t()>& fork) {
  const auto before = procfs::Task(::getpid()).open("ns/pid", O_RDONLY | O_CLOEXEC);
  check(::setns(pid_namespace, CLONE_NEWPID), "enter a pid namespace");
  const auto forked = fork();
  const int error = errno;
  if (forked != 0) {
    check(::setns(before.get(), CLONE_NEWPID), "leave a pid namespace");
    errno = error;
    check(forked, "fork into a pid namespace");
  }
  return forked;
}

void Home::kill_root() const {
  check(::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0), "kill", fmt::format("task {}", root_));
}

void Home::await_end() const {
  pollfd end{pidfd_.get(), POLLIN, 0};
  while (pidfd_ && ::poll(&end, 1, -1) < 0 && errno == EINTR) {
  }
}

std::string Home::visit(const std::function<std::string(pid_t root)>& work, const outside::Serve& serve) const {
  if (!apart("pid") && !apart("mnt") && !apart("net") && !apart("uts")) {
    return outside::stay([&] { return work(root_there_); }, serve);
  }
  const procfs::Task root(root_);
  const auto to_enter = entrances(root, ours_, theirs_);
  if (apart("mnt")) {
    struct stat devpts {};
    mount_sources_.outer_devpts = ::stat("/dev/pts", &devpts) == 0 ? devpts.st_dev : 0;
    mount_sources_.outer.emplace();
    mount_sources_.link = theirs_.at("mnt");
    tarball::load();  // of our files, not theirs
  }
  const auto pids = root.open("ns/pid", O_RDONLY | O_CLOEXEC);
  return outside::depute([&] { return fork_into(pids.get(), ::fork); },
                         [&] {
                           for (const auto& [fd, flag] : to_enter) {
                             check(::setns(fd.get(), flag), "enter the namespaces of", fmt::format("task {}", root_));
                           }
                           if (apart("mnt")) {
                             mount_sources_.mounts = kernel::parse_mountinfo(root.read("mountinfo"));
                             mount_sources_.tmpfs = open_tmpfs_roots(mount_sources_.mounts, &users_);
                           }
                           if (!proc_is_good()) {
                             see_own_proc();
                           }
                           return work(root_there_);
                         },
                         serve);
}

}  // namespace criu::namespaces
