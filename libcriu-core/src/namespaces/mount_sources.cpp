// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/mount_sources.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "files/common.hpp"
#include "kernel/mounts.hpp"
#include "namespaces/user.hpp"

namespace criu::namespaces {

using base::check;
using kernel::Mount;

namespace {

bool is_tmpfs(const Mount& mount) { return mount.type == "tmpfs" && mount.root == "/"; }

std::vector<Mount> mounts_of_thread(int proc) {
  return kernel::parse_mountinfo(procfs::read_file(proc, "thread-self/mountinfo", "the mounts of a thread"));
}

// The mounts that a thread looks at, which are its alone: what covers others can be taken away.
class Sight {
 public:
  explicit Sight(int proc) : proc_(proc) { look(); }

  // The root of a tmpfs, when nothing covers it any more.
  base::Fd uncover(const Mount& wanted) {
    for (;;) {
      const auto* found = find(wanted);
      if (found == nullptr) {
        return {};
      }
      const auto* cover = cover_of(*found);
      if (cover == nullptr) {
        break;
      }
      check(::umount2(cover->point.c_str(), MNT_DETACH), "uncover", wanted.point);
      look();
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

 private:
  void look() {
    mounts_ = mounts_of_thread(proc_);
    by_id_.clear();
    by_point_.clear();
    by_parent_.clear();
    for (const auto& mount : mounts_) {
      by_id_.emplace(mount.id, &mount);
      by_point_.emplace(mount.point, &mount);
      by_parent_.emplace(std::pair{mount.parent, std::string_view(mount.point)}, &mount);
    }
  }

  const Mount* find(const Mount& wanted) const {
    const auto [begin, end] = by_point_.equal_range(wanted.point);
    const auto found =
        std::find_if(begin, end, [&](const auto& at) { return is_tmpfs(*at.second) && at.second->dev == wanted.dev; });
    return found == end ? nullptr : found->second;
  }

  // One of those that are mounted over it, or over a directory on the way to it.
  const Mount* cover_of(const Mount& mount) const {
    const Mount* next = &mount;  // what the way leads to from the mount that is looked at
    for (auto at = by_id_.find(mount.id); at != by_id_.end(); next = at->second, at = by_id_.find(next->parent)) {
      const std::string_view way = next->point;
      for (std::size_t size = way.size(); size != 0;
           size = size == 1 ? 0 : std::max(way.rfind('/', size - 1), std::size_t{1})) {
        const auto [begin, end] = by_parent_.equal_range({at->first, way.substr(0, size)});
        const auto found = std::find_if(
            begin, end, [&](const auto& other) { return other.second != at->second && other.second != next; });
        if (found != end) {
          return found->second;
        }
      }
    }
    return nullptr;
  }

  int proc_;
  std::vector<Mount> mounts_;
  std::unordered_map<int, const Mount*> by_id_;
  std::unordered_multimap<std::string_view, const Mount*> by_point_;
  std::multimap<std::pair<int, std::string_view>, const Mount*> by_parent_;
};

base::Fd open_proc() { return base::Fd(check(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC), "open", "/proc")); }

// Of these mounts, which this thread looks at; it has a copy of them afterwards.
std::map<int, base::Fd> uncover_all(const std::vector<Mount>& mounts, int proc) {
  std::map<int, base::Fd> roots;
  if (std::none_of(mounts.begin(), mounts.end(), is_tmpfs)) {
    return roots;
  }
  check(::unshare(CLONE_FS | CLONE_NEWNS), "copy the mounts of the tree");
  check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make a copy of mounts private");
  Sight sight(proc);
  // What was mounted last is taken away first.
  for (auto mount = mounts.rbegin(); mount != mounts.rend(); ++mount) {
    if (auto fd = is_tmpfs(*mount) ? sight.uncover(*mount) : base::Fd()) {
      roots.emplace(mount->id, std::move(fd));
    }
  }
  return roots;
}

// In a thread, whose root and mounts can be others than those of this process; or in a process of the tree's users,
// whose copies of mounts are only theirs to change.
template <typename Work>
void apart(const Users* users, Work work) {
  if (users != nullptr && users->own()) {
    return users->run(work);
  }
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

std::map<int, base::Fd> open_tmpfs_roots(const std::vector<Mount>& mounts, const Users* users) {
  std::map<int, base::Fd> roots;
  const auto proc = open_proc();
  apart(users, [&] { roots = uncover_all(mounts, proc.get()); });
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
  apart(users, [&] {
    check(::unshare(CLONE_FS), "have a root of its own");
    check(::setns(ns.get(), CLONE_NEWNS), "enter the mounts of", "task " + std::to_string(task.pid()));
    space.root = base::Fd(check(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "open", "/"));
    space.mounts = mounts_of_thread(proc.get());
    space.tmpfs = uncover_all(space.mounts, proc.get());
  });
  inner.push_back(std::move(space));
}

namespace {

const Mount* with_id(const std::vector<Mount>& mounts, int id) {
  const auto found = std::find_if(mounts.begin(), mounts.end(), [id](const Mount& mount) { return mount.id == id; });
  return found == mounts.end() ? nullptr : &*found;
}

}  // namespace

const std::vector<Mount>& MountSources::around(int mount) const {
  const auto space = std::find_if(inner.begin(), inner.end(), [mount](const MountSpace& candidate) {
    return with_id(candidate.mounts, mount) != nullptr;
  });
  return space == inner.end() ? mounts : space->mounts;
}

bool MountSources::is_covered(int mount, const std::string& path) const {
  const auto& all = around(mount);
  std::set<int> way;
  for (const auto* at = with_id(all, mount); at != nullptr && way.insert(at->id).second;) {
    at = with_id(all, at->parent);
  }
  return std::any_of(all.begin(), all.end(), [&](const Mount& other) {
    return way.contains(other.parent) && !way.contains(other.id) && kernel::is_below(path, other.point);
  });
}

int MountSources::root_of(int mount) const {
  for (const auto& space : inner) {
    if (with_id(space.mounts, mount) != nullptr) {
      return space.root.get();
    }
  }
  return AT_FDCWD;
}

}  // namespace criu::namespaces
