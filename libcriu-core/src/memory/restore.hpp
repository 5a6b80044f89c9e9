// SPDX-License-Identifier: LGPL-2.1-only
// Restoring an address space: its private areas are mapped and filled before the running code of the task goes, so that
// its children inherit them. They lie where they belong if that is free, else beside it, and the restorer moves them
// home.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "base/fd.hpp"
#include "memory/aio.hpp"
#include "memory/areas.hpp"
#include "memory/pages.hpp"
#include "memory/sysv.hpp"
#include "memory/vdso.hpp"
#include "restorer/plan.hpp"

namespace criu {

struct RestoreContext;
struct TaskImage;

namespace memory {

class Restored {
 public:
  // What can be found out before the task exists: where its pages lie, what becomes of its vDSO.
  void study(const RestoreContext&, const TaskImage&);
  // Maps and fills the private areas of the task, inside it. Areas that the parent has too, at the same place and of
  // the same file, are taken over from `parent` (inherited by fork), and pages with equal contents stay shared with it.
  void fill(RestoreContext&, const TaskImage&, const Restored* parent);

  // What is the task's alone: attaches System V shared memory and makes rings of asynchronous I/O. Once the task has
  // its children, which would inherit them.
  void make_own(RestoreContext& context, const TaskImage& task) {
    attachments_.make(context, task);
    aio_rings_.make(context, task);
  }

  // What the restorer has to do, in ascending order of addresses; opens the files of shared mappings.
  std::vector<restorer::Area> areas(const RestoreContext&, const TaskImage&);
  std::vector<restorer::Range> guards(const TaskImage&) const;
  // What becomes of the vDSO, and the saved code of it when that stays.
  const VdsoPlan& vdso_plan() const { return vdso_; }
  std::span<std::byte> saved_vdso() const;
  // The places where filled areas are parked, unsorted.
  std::vector<Interval> parked() const;

 private:
  struct Parked {
    const images::vma_entry* vma;
    std::uint64_t at;
    bool inherited;
    std::uint32_t prot;  // as mapped until it is home
  };

  // Areas near each other, of which none is inherited: parked_[first] to parked_[end - 1].
  struct Cluster {
    std::size_t first, end;
    std::uint64_t start, size;  // as they were
  };

  std::vector<Cluster> list_areas(const TaskImage&, const Restored* parent);
  void make_writable(const TaskImage&);
  void map_areas(RestoreContext&, const TaskImage&, const Restored* parent);
  void park_at(const Cluster&, std::uint64_t place);
  void park_beside(RestoreContext&, const std::vector<Cluster>&);
  static bool mapped_alike(const Parked&, const Parked&);
  void map_run(const RestoreContext&, const TaskImage&, std::size_t first, std::size_t end);
  void read_pages(restorer::Shared&, const TaskImage&);
  void clear_pages_of(const Restored& parent) const;
  const Parked* find(std::uint64_t address) const;
  int file_for(const RestoreContext&, const TaskImage&, const images::vma_entry&);
  int shared_file_for(const RestoreContext&, const TaskImage&, const images::vma_entry&);

  bool is_filled(const images::vma_entry& vma) const { return is_private(vma) || (vdso_.proxy && &vma == vdso_.code); }

  Pagemap pagemap_;
  VdsoPlan vdso_;
  Attachments attachments_;
  AioRings aio_rings_;
  std::vector<Parked> parked_;                               // ascending by vma start
  std::map<std::pair<std::uint64_t, int>, base::Fd> files_;  // by file id and access mode
};

}  // namespace memory
}  // namespace criu
