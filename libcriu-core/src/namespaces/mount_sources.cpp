// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/mount_sources.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "files/common.hpp"
#include "kernel/mounts.hpp"

namespace criu::namespaces {

using base::check;
using kernel::Mount;

namespace {

bool is_tmpfs(const Mount& mount) { return mount.type == "tmpfs" && mount.root == "/"; }

const Mount* find(const std::vector<Mount>& mounts, int id) {
  const auto found = std::find_if(mounts.begin(), mounts.end(), [id](const Mount& mount) { return mount.id == id; });
  return found == mounts.end() ? nullptr : &*found;
}

// Of those that are mounted over it, or over a directory on the way to it, the one that the way comes to first.
const Mount* cover_of(const Mount& mount, const std::vector<Mount>& mounts) {
  const Mount* cover = nullptr;
  const Mount* next = &mount;  // what the way leads to from the mount that is looked at
  for (const auto* at = &mount; at != nullptr; next = at, at = find(mounts, at->parent)) {
    for (const auto& other : mounts) {
      if (other.parent == at->id && &other != at && &other != next && kernel::is_below(next->point, other.point)) {
        cover = &other;
      }
    }
  }
  return cover;
}

std::vector<Mount> mounts_of_thread(int proc) {
  return kernel::parse_mountinfo(procfs::read_file(proc, "thread-self/mountinfo", "the mounts of a thread"));
}

// In mounts that are this thread's alone: takes away what covers it, and opens it.
base::Fd uncover(const Mount& wanted, int proc) {
  for (;;) {
    const auto mounts = mounts_of_thread(proc);
    const auto found = std::find_if(mounts.begin(), mounts.end(), [&](const Mount& mount) {
      return is_tmpfs(mount) && mount.dev == wanted.dev && mount.point == wanted.point;
    });
    if (found == mounts.end()) {
      return {};
    }
    const auto* cover = cover_of(*found, mounts);
    if (cover == nullptr) {
      break;
    }
    check(::umount2(cover->point.c_str(), MNT_DETACH), "uncover", wanted.point);
  }
  const base::Fd root(check(::open(wanted.point.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC), "open", wanted.point));
  struct stat stat {};
  check(::fstat(root.get(), &stat), "look at", wanted.point);
  if (files::kernel_dev(stat.st_dev) != wanted.dev) {
    return {};
  }
  return base::Fd(
      check(::open_tree(root.get(), "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH), "bind", wanted.point));
}

base::Fd open_proc() { return base::Fd(check(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC), "open", "/proc")); }

// Of these mounts, which this thread looks at; it has a copy of them afterwards.
std::map<int, base::Fd> uncover_all(const std::vector<Mount>& mounts, int proc) {
  std::map<int, base::Fd> roots;
  if (std::none_of(mounts.begin(), mounts.end(), is_tmpfs)) {
    return roots;
  }
  check(::unshare(CLONE_FS | CLONE_NEWNS), "copy the mounts of the tree");
  check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make a copy of mounts private");
  // What was mounted last is taken away first.
  for (auto mount = mounts.rbegin(); mount != mounts.rend(); ++mount) {
    if (auto fd = is_tmpfs(*mount) ? uncover(*mount, proc) : base::Fd()) {
      roots.emplace(mount->id, std::move(fd));
    }
  }
  return roots;
}

// In a thread, whose root and mounts can be others than those of this process.
template <typename Work>
void apart(Work work) {
  std::exception_ptr failure;
  std::thread thread([&] {
    try {
      work();
    } catch (...) {
      failure = std::current_exception();
    }
  });
  thread.join();
  if (failure) {
    std::rethrow_exception(failure);
  }
}

}  // namespace

std::map<int, base::Fd> open_tmpfs_roots(const procfs::Task& root) {
  std::map<int, base::Fd> roots;
  const auto mounts = kernel::parse_mountinfo(root.read("mountinfo"));
  const auto proc = open_proc();
  apart([&] { roots = uncover_all(mounts, proc.get()); });
  return roots;
}

void MountSources::note(const procfs::Task& task) {
  MountSpace space;
  try {
    space.link = task.link("ns/mnt");
  } catch (const base::Error& error) {
    if (error.code() != ENOENT) {
      throw;
    }
    return;  // its first thread has ended
  }
  if (space.link == link ||
      std::any_of(inner.begin(), inner.end(), [&](const MountSpace& known) { return known.link == space.link; })) {
    return;
  }
  const auto ns = task.open("ns/mnt", O_RDONLY | O_CLOEXEC);
  const auto proc = open_proc();
  apart([&] {
    check(::unshare(CLONE_FS), "have a root of its own");
    check(::setns(ns.get(), CLONE_NEWNS), "enter the mounts of", "task " + std::to_string(task.pid()));
    space.root = base::Fd(check(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "open", "/"));
    space.mounts = mounts_of_thread(proc.get());
    space.tmpfs = uncover_all(space.mounts, proc.get());
  });
  inner.push_back(std::move(space));
}

int MountSources::root_of(int mount) const {
  for (const auto& space : inner) {
    if (find(space.mounts, mount) != nullptr) {
      return space.root.get();
    }
  }
  return AT_FDCWD;
}

}  // namespace criu::namespaces
