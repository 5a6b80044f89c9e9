// SPDX-License-Identifier: LGPL-2.1-only
// Restoring an address space: its private areas are mapped and filled beside the running code of the task, where its
// children inherit them, and the restorer moves them home.
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
  // Maps and fills the private areas of the task. Areas that the parent has too, at the same place and of the same
  // file, are taken over from `parent` (inherited by fork), and pages with equal contents stay shared with it.
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

  std::uint64_t choose_places(const TaskImage&, const Restored* parent);
  void make_writable(const TaskImage&, const std::vector<Run>& runs);
  void map_beside(RestoreContext&, const TaskImage&, const std::vector<Run>& runs, const Restored* parent);
  static bool mapped_alike(const Parked&, const Parked&);
  void map_run(const RestoreContext&, const TaskImage&, std::size_t first, std::size_t end);
  void read_pages(restorer::Shared&, const TaskImage&, const Pagemap&, const Restored* parent);
  const Parked* find(std::uint64_t address) const;
  int file_for(const RestoreContext&, const TaskImage&, const images::vma_entry&);
  int shared_file_for(const RestoreContext&, const TaskImage&, const images::vma_entry&);

  bool is_filled(const images::vma_entry& vma) const { return is_private(vma) || (vdso_.proxy && &vma == vdso_.code); }

  VdsoPlan vdso_;
  Attachments attachments_;
  AioRings aio_rings_;
  std::vector<Parked> parked_;                               // ascending by vma start
  std::vector<Run> runs_;                                    // what was filled, for the children
  std::map<std::pair<std::uint64_t, int>, base::Fd> files_;  // by file id and access mode
};

}  // namespace memory
}  // namespace criu
