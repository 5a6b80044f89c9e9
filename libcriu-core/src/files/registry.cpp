// SPDX-License-Identifier: LGPL-2.1-only
#include "files/registry.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.hpp"

namespace criu::files {

namespace {

// 0: the same, 1: less, 2: greater.
int compare(Ref a, Ref b) {
  const auto order = ::syscall(SYS_kcmp, a.pid, b.pid, KCMP_FILE, a.fd, b.fd);
  if (order < 0 || order > 2) {
    throw base::Error("compare", fmt::format("fd {} of task {} and fd {} of task {}", a.fd, a.pid, b.fd, b.pid),
                      order < 0 ? errno : 0, "kcmp needs a kernel with CONFIG_KCMP");
  }
  return static_cast<int>(order);
}

int compare_watched(Ref a, Ref epoll, int added_as, unsigned nth) {
  kcmp_epoll_slot slot{static_cast<std::uint32_t>(epoll.fd), static_cast<std::uint32_t>(added_as), nth};
  const auto order = ::syscall(SYS_kcmp, a.pid, epoll.pid, KCMP_EPOLL_TFD, a.fd, &slot);
  if (order < 0 || order > 2) {
    throw base::Error("find out what is watched by",
                      fmt::format("epoll fd {} of task {} under number {}", epoll.fd, epoll.pid, added_as),
                      order < 0 ? errno : 0);
  }
  return static_cast<int>(order);
}

}  // namespace

bool Registry::Order::operator()(const Ref& a, const Ref& b) const { return compare(a, b) == 1; }

std::uint32_t Registry::identify(Ref ref, const kernel::FdInfo& info, std::uint32_t id) {
  Key key{info.ino, info.mnt_id, info.flags & static_cast<unsigned>(O_ACCMODE | O_PATH), 0};
  if (info.text.find("\neventfd-id:") != std::string::npos) {
    key.unique = kernel::number(info.text, "eventfd-id");
  } else if (info.text.find("\ntty-index:") != std::string::npos) {
    key.unique = kernel::number(info.text, "tty-index");
  }
  return trees_[key].emplace(ref, id).first->second;
}

std::uint32_t Registry::watched(Ref epoll, const kernel::EpollTarget& target, unsigned nth) const {
  for (auto at = trees_.lower_bound(Key{target.ino, -0x7fffffff, 0, 0});
       at != trees_.end() && at->first.ino == target.ino; ++at) {
    // The nodes are in the kernel's order; std::map cannot search by another question than its own.
    std::vector<const Tree::value_type*> nodes;
    for (const auto& node : at->second) {
      nodes.push_back(&node);
    }
    std::size_t low = 0, high = nodes.size();
    while (low < high) {
      const auto middle = (low + high) / 2;
      const auto order = compare_watched(nodes[middle]->first, epoll, target.fd, nth);
      if (order == 0) {
        return nodes[middle]->second;
      }
      (order == 1 ? low : high) = order == 1 ? middle + 1 : middle;
    }
  }
  return 0;
}

bool Registry::is_watched(Ref epoll, const kernel::EpollTarget& target, unsigned nth) {
  return compare_watched({epoll.pid, target.fd}, epoll, target.fd, nth) == 0;
}

bool Registry::has_writer(std::uint64_t ino) const {
  for (auto at = trees_.lower_bound(Key{ino, -0x7fffffff, 0, 0}); at != trees_.end() && at->first.ino == ino; ++at) {
    if ((at->first.mode & O_ACCMODE) != O_RDONLY) {
      return true;
    }
  }
  return false;
}

const Registry::Table* Registry::find_table(pid_t pid) const {
  const auto found = tables_.find(pid);
  return found == tables_.end() ? nullptr : &found->second;
}

}  // namespace criu::files
