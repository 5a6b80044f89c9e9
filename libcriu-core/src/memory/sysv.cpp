// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/sysv.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/sysmacros.h>

#include <algorithm>

#include "base/error.hpp"
#include "memory/pages.hpp"
#include "memory/shared.hpp"
#include "restore_context.hpp"

namespace criu::memory {

using base::check;
using base::Error;

namespace {

constexpr std::uint64_t usual_huge_page = 2 << 20;

// Where the segment would begin if all of it were attached.
std::uint64_t base_of(const images::vma_entry& vma) { return vma.start() - vma.pgoff(); }

bool is_attachment(const images::vma_entry& vma) { return (vma.status() & sysv_ipc) != 0; }

}  // namespace

bool is_segment(const procfs::Area& area) {
  return area.shared && area.name.starts_with("/SYSV") && area.name.ends_with(" (deleted)") &&
         (area.has("ht") || makedev(area.dev_major, area.dev_minor) == shm_device());
}

void SeenSegments::add(pid_t pid, const procfs::Area& area, std::string where) {
  auto& seen = all_[static_cast<std::uint32_t>(area.inode)];
  if (seen.areas++ == 0) {
    seen.file = fmt::format("/proc/{}/map_files/{:x}-{:x}", pid, area.start, area.end);
    seen.where = std::move(where);
  }
  seen.reach = std::max(seen.reach, area.offset + (area.end - area.start));
}

void Attachments::make(RestoreContext& context, const TaskImage& task) {
  // By segment, place and rights; parts that an mprotect made keep the rights of the whole.
  std::map<std::tuple<std::uint64_t, std::uint64_t, std::uint32_t>, std::vector<const images::vma_entry*>> groups;
  for (const auto& vma : task.mm.vmas()) {
    if (is_attachment(vma)) {
      const auto access = vma.has_fdflags() ? vma.fdflags() & O_ACCMODE : std::uint32_t{O_RDWR};
      groups[{vma.shmid(), base_of(vma), access}].push_back(&vma);
    }
  }
  for (const auto& [key, areas] : groups) {
    attach(context, task, areas);
  }
}

void Attachments::attach(RestoreContext& context, const TaskImage& task,
                         const std::vector<const images::vma_entry*>& areas) {
  const auto& first = *areas.front();
  const auto what = fmt::format("segment {} at {:x} of {}", first.shmid(), first.start(), task.name());
  const auto id = static_cast<int>(first.shmid());
  shmid_ds segment{};
  check(::shmctl(id, IPC_STAT, &segment), "look at System V", what);
  for (const auto* vma : areas) {
    const auto size = vma->end() - vma->start();
    if (vma->pgoff() > segment.shm_segsz || (segment.shm_segsz - vma->pgoff() + page_size - 1) < size) {
      throw Error("corrupt checkpoint", what + " reaches behind its end", 0);
    }
  }
  const bool read_only = first.has_fdflags() && (first.fdflags() & O_ACCMODE) == O_RDONLY;
  const bool runs =
      std::any_of(areas.begin(), areas.end(), [](const auto* vma) { return (vma->prot() & PROT_EXEC) != 0; });
  const auto huge = (first.flags() & MAP_HUGETLB) != 0 ? std::uint64_t{1} << (first.flags() >> MAP_HUGE_SHIFT & 63) : 0;
  const auto alignment = huge == 0 ? page_size : std::max(huge, usual_huge_page);
  const auto size = (segment.shm_segsz + alignment - 1) / alignment * alignment;
  Space space;
  space.take(context.inherited.mappings);
  space.take(context.needed_addresses);
  auto at = space.find(size, alignment);
  const auto try_at = [&] {
    return ::shmat(id, reinterpret_cast<void*>(at), (read_only ? SHM_RDONLY : 0) | (runs ? SHM_EXEC : 0)) !=  // NOLINT
           reinterpret_cast<void*>(-1);                                                                       // NOLINT
  };
  bool attached = try_at();
  if (!attached && errno == EINVAL) {
    space.take(own_mappings());
    at = space.find(size, alignment);
    attached = try_at();
  }
  if (!attached) {
    throw Error("attach System V", what, errno);
  }
  context.inherited.mappings.push_back({at, at + size});
  const std::uint32_t prot = PROT_READ | (read_only ? 0U : PROT_WRITE) | (runs ? PROT_EXEC : 0U);
  for (const auto* vma : areas) {
    const auto from = at + vma->pgoff();
    parts_[vma->start()] = {{from, from + (vma->end() - vma->start())}, prot};
  }
}

std::vector<Interval> Attachments::parked() const {
  std::vector<Interval> result;
  for (const auto& [start, part] : parts_) {
    result.push_back(part.at);
  }
  return result;
}

}  // namespace criu::memory
