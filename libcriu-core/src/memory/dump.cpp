// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/dump.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pagemap.pb.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "files/collect.hpp"
#include "kernel/pagemap.hpp"
#include "log.hpp"
#include "memory/aio.hpp"
#include "memory/areas.hpp"
#include "memory/page_writer.hpp"
#include "memory/pages.hpp"
#include "memory/sysv.hpp"
#include "memory/vdso.hpp"

namespace criu::memory {

using base::Error;
using procfs::Area;

namespace {

enum PagemapFlags : std::uint32_t { pe_lazy = 2, pe_present = 4 };

constexpr unsigned map_droppable = 0x08;  // MAP_DROPPABLE, 6.11

std::string where(const procfs::Task& task, const Area& area) {
  return fmt::format("area {:x}-{:x} of task {}{}{}", area.start, area.end, task.pid(), area.name.empty() ? "" : ": ",
                     area.name);
}

// The advice that shows as a VmFlag, by the number of the madvise call that gives it.
std::uint64_t advice_of(const Area& area) {
  std::uint64_t advice = 0;
  const auto add = [&](const char(&flag)[3], int number) {
    if (area.has(flag)) {
      advice |= std::uint64_t{1} << number;
    }
  };
  add("rr", MADV_RANDOM), add("sr", MADV_SEQUENTIAL), add("dc", MADV_DONTFORK), add("mg", MADV_MERGEABLE);
  add("hg", MADV_HUGEPAGE), add("nh", MADV_NOHUGEPAGE), add("wf", MADV_WIPEONFORK);
  // Huge pages and the like are never in core dumps of their own accord.
  if (!area.has("ht") && !area.has("dp")) {
    add("dd", MADV_DONTDUMP);
  }
  return advice;
}

unsigned log2_of(std::uint64_t size) { return static_cast<unsigned>(63 - __builtin_clzll(size)); }

std::uint32_t map_flags(const Area& area) {
  std::uint32_t flags = area.shared ? MAP_SHARED : MAP_PRIVATE;
  if (area.has("gd")) {
    flags |= MAP_GROWSDOWN;
  }
  if (area.has("lo")) {
    flags |= MAP_LOCKED;
  }
  if (area.has("nr")) {
    flags |= MAP_NORESERVE;
  }
  if (area.has("ht")) {
    flags |= MAP_HUGETLB | log2_of(area.page_size) << MAP_HUGE_SHIFT;
  }
  if (area.has("dp")) {
    flags = (flags & ~static_cast<unsigned>(MAP_PRIVATE)) | map_droppable;
  }
  return flags;
}

// What has no field in the format and would be lost without a word.
void refuse_unsupported(const procfs::Task& task, const Area& area) {
  if (area.has("io") || area.has("pf")) {
    throw Error("cannot dump", where(task, area), 0, "device memory is not supported");
  }
  if (area.has("um") || area.has("ui")) {
    throw Error("cannot dump", where(task, area), 0, "it is managed by a userfaultfd");
  }
  if (area.has("sl")) {
    throw Error("cannot dump", where(task, area), 0, "it is sealed with mseal, which the image format cannot say");
  }
  if (area.has("ss")) {
    throw Error("cannot dump", where(task, area), 0, "shadow stacks are not supported by this version");
  }
  if (area.has("dp")) {
    throw Error("cannot dump", where(task, area), 0, "droppable memory is not supported by this version");
  }
}

class AreaSaver {
 public:
  AreaSaver(DumpContext& context, files::Collector& files, const procfs::Task& task, images::mm_entry& mm)
      : context_(context), files_(files), task_(task), mm_(mm) {}

  // A vDSO that another one's functions jump to is this kernel's alone; what the task knows is the one that jumps.
  void look_for_mark(const std::vector<Area>& areas) {
    for (const auto& area : areas) {
      if (area.name == "[vdso]") {
        const auto mem = task_.open("mem", O_RDONLY);
        VdsoMark mark{};
        if (::pread(mem.get(), &mark, sizeof mark, static_cast<off_t>(area.start)) == sizeof mark && mark.valid()) {
          redirected_ = mark.redirected();
        }
      }
    }
  }

  void save(const Area& area) {
    if (redirected_ != 0 && (area.name == "[vdso]" || area.name.starts_with("[vvar"))) {
      return;
    }
    if (redirected_ != 0 && area.start == redirected_) {
      return add(area, vdso | regular | anon_private, MAP_PRIVATE | MAP_ANONYMOUS);
    }
    if (area.name == "[vsyscall]") {
      return add(area, vsyscall | anon_private, MAP_PRIVATE | MAP_ANONYMOUS);
    }
    if (area.name == "[vdso]") {
      return add(area, vdso | regular | anon_private, MAP_PRIVATE | MAP_ANONYMOUS);
    }
    if (area.name.starts_with("[vvar")) {
      return save_vvar(area);
    }
    if (is_aio_ring(area)) {
      save_aio_ring(task_, area, mm_);
      return add(area, aio_ring, MAP_SHARED);
    }
    if (area.name == "anon_inode:[io_uring]") {
      return save_ring(area);
    }
    if (area.name == "[uprobes]") {
      throw Error("cannot dump", where(task_, area), 0, "somebody traces the task with uprobes");
    }
    refuse_unsupported(task_, area);
    if (is_segment(area)) {
      return save_attachment(area);
    }
    const bool anonymous = area.inode == 0 || area.name == "/anon_hugepage (deleted)";
    if (anonymous && !area.shared) {
      const auto kind = area.name == "[heap]" ? heap : 0U;
      return add(area, regular | anon_private | kind, map_flags(area) | MAP_ANONYMOUS);
    }
    const auto mapping = files_.reference_mapping(task_.pid(), area);
    const auto status = regular | (area.shared ? file_shared : file_private) | (mapping.memfd ? memfd : 0U);
    add(area, status, map_flags(area));
    auto& vma = *mm_.mutable_vmas(mm_.vmas_size() - 1);
    vma.set_shmid(mapping.id);
    vma.set_fdflags(mapping.access);
  }

 private:
  void add(const Area& area, std::uint32_t status, std::uint32_t flags) {
    auto& vma = *mm_.add_vmas();
    vma.set_start(area.start);
    vma.set_end(area.end);
    vma.set_pgoff((flags & MAP_ANONYMOUS) != 0 ? 0 : area.offset);
    vma.set_shmid(0);
    vma.set_prot((area.readable ? PROT_READ : 0) | (area.writable ? PROT_WRITE : 0) |
                 (area.executable ? PROT_EXEC : 0));
    vma.set_flags(flags);
    vma.set_status(status);
    vma.set_fd(-1);
    if ((status & (vdso | vvar | vsyscall)) == 0) {
      if (const auto advice = advice_of(area); advice != 0) {
        vma.set_madv(advice);
      }
      if (is_locked_on_fault(area)) {
        vma.mutable_extension()->set_lock_on_fault(true);
      }
      if (area.protection_key != 0) {
        vma.mutable_extension()->set_protection_key(area.protection_key);
      }
    }
  }

  // The kernel has split the data pages in two since 6.13; the format knows one area.
  void save_vvar(const Area& area) {
    if (mm_.vmas_size() > 0) {
      auto& last = *mm_.mutable_vmas(mm_.vmas_size() - 1);
      if ((last.status() & vvar) != 0 && last.end() == area.start) {
        last.set_end(area.end);
        return;
      }
    }
    add(area, vvar | regular | anon_private, MAP_PRIVATE | MAP_ANONYMOUS);
  }

  // System V shared memory: which segment, by its id; the segment itself is saved once, with its namespace.
  void save_attachment(const Area& area) {
    context_.segments.add(task_.pid(), area, where(task_, area));
    add(area, regular | anon_shared | sysv_ipc, map_flags(area) | MAP_ANONYMOUS);
    auto& vma = *mm_.mutable_vmas(mm_.vmas_size() - 1);
    vma.set_shmid(area.inode);
    vma.set_pgoff(area.offset);
    vma.set_fdflags(files::mapping_access(task_.pid(), area));
  }

  // Which ring it is of is found out when the descriptors are known (files/io_uring); until then its inode tells.
  void save_ring(const Area& area) {
    add(area, io_uring, MAP_SHARED);
    auto& vma = *mm_.mutable_vmas(mm_.vmas_size() - 1);
    vma.set_shmid(area.inode);
    vma.clear_madv();
  }

  DumpContext& context_;
  files::Collector& files_;
  const procfs::Task& task_;
  images::mm_entry& mm_;
  std::uint64_t redirected_ = 0;  // where the code lies that jumps into this kernel's vDSO
};

std::vector<PageRange> private_ranges(const PagesOf& task) {
  std::vector<PageRange> ranges;
  for (const auto& area : task.areas) {
    if (!area.always) {
      ranges.push_back({area.start, area.end});
    }
  }
  return ranges;
}

// The parts of the regions that lie in private areas, with what the pagemap says of each.
std::vector<Source> choose_pages(const PagesOf& task, const std::vector<PageRegion>& regions,
                                 const std::vector<std::uint64_t>& stack_pages) {
  std::vector<Source> sources;
  auto region = regions.begin();
  for (const auto& area : task.areas) {
    if (area.always) {
      sources.push_back({area.start, area.end, false, false, pe_present});
      continue;
    }
    while (region != regions.end() && region->end <= area.start) {
      ++region;
    }
    for (auto at = region; at != regions.end() && at->start < area.end; ++at) {
      if (at->guard || (at->file && !area.anonymous)) {
        continue;
      }
      Source source{std::max(at->start, area.start), std::min(at->end, area.end), area.directly, area.anonymous,
                    area.lazy ? pe_present | pe_lazy : pe_present};
      // A page that a stack pointer is in is needed at once, whoever restores the rest lazily.
      auto page = std::lower_bound(stack_pages.begin(), stack_pages.end(), source.start);
      for (; area.lazy && page != stack_pages.end() && *page < source.end; ++page) {
        if (*page > source.start) {
          sources.push_back({source.start, *page, source.directly, source.drop_zeros, source.flags});
        }
        sources.push_back({*page, *page + page_size, source.directly, source.drop_zeros, pe_present});
        source.start = *page + page_size;
      }
      if (source.start < source.end) {
        sources.push_back(source);
      }
    }
  }
  return sources;
}

std::vector<std::uint64_t> pages_with(const std::vector<std::uint64_t>& pointers) {
  std::vector<std::uint64_t> pages;
  pages.reserve(pointers.size());
  for (const auto pointer : pointers) {
    pages.push_back(pointer / page_size * page_size);
  }
  std::sort(pages.begin(), pages.end());
  pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
  return pages;
}

void write_pagemap(const image::Directory& images, const PagesOf& task, const std::vector<Written>& written) {
  auto image = images.create(image::type::pagemap, task.number);
  images::pagemap_head head;
  head.set_pages_id(task.pages_id);
  image.write(head);
  images::pagemap_entry entry;
  for (const auto& run : written) {
    entry.set_vaddr(run.start);
    entry.set_compat_nr_pages(0);
    entry.set_nr_pages(run.pages);
    entry.set_flags(run.flags);
    image.write(entry);
  }
  image.finish();
}

}  // namespace

PageStats& PageStats::operator+=(const PageStats& more) {
  scanned += more.scanned, written += more.written, lazy += more.lazy, skipped_parent += more.skipped_parent;
  collect_us += more.collect_us, write_us += more.write_us;
  return *this;
}

void PageStats::fill(images::dump_stats_entry& stats) const {
  stats.set_memdump_time(static_cast<std::uint32_t>(collect_us));
  stats.set_memwrite_time(static_cast<std::uint32_t>(write_us));
  stats.set_pages_scanned(scanned);
  stats.set_pages_skipped_parent(skipped_parent);
  stats.set_pages_written(written);
  stats.set_pages_lazy(lazy);
}

void save_areas(DumpContext& context, files::Collector& files, const procfs::Task& task, const std::vector<Area>& areas,
                images::mm_entry& mm) {
  AreaSaver saver(context, files, task, mm);
  saver.look_for_mark(areas);
  for (const auto& area : areas) {
    context.attempt([&] { saver.save(area); });
  }
}

PagesOf pages_of(DumpContext& context, pid_t pid, const std::vector<procfs::Area>& areas, const images::mm_entry& mm,
                 std::vector<std::uint64_t> stack_pointers) {
  PagesOf out{pid, static_cast<std::uint64_t>(pid), context.new_pages_id(), {}, std::move(stack_pointers)};
  auto area = areas.begin();
  for (const auto& vma : mm.vmas()) {
    while (area != areas.end() && area->end <= vma.start()) {
      ++area;
    }
    const bool directly = (vma.prot() & PROT_READ) != 0 && area != areas.end() && !area->mapped_by_others;
    const bool always = (vma.status() & (vdso | aio_ring)) != 0;
    if (always || is_private(vma)) {
      const bool anonymous = (vma.status() & anon_private) != 0;
      out.areas.push_back({vma.start(), vma.end(), always, directly, anonymous,
                           anonymous && (vma.flags() & (MAP_LOCKED | MAP_HUGETLB)) == 0});
    }
  }
  return out;
}

SavedPages save_pages(const image::Directory& images, const PagesOf& task, const std::function<bool()>& abandoned) {
  using clock = std::chrono::steady_clock;
  const auto us = [](auto duration) {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(duration).count());
  };
  SavedPages saved;
  const auto began = clock::now();
  const procfs::Task proc(task.pid);
  const auto regions = PageScanner(proc).scan(private_ranges(task));
  const auto sources = choose_pages(task, regions, pages_with(task.stack_pointers));
  std::copy_if(regions.begin(), regions.end(), std::back_inserter(saved.guards),
               [](const PageRegion& region) { return region.guard; });
  for (const auto& source : sources) {
    saved.stats.scanned += (source.end - source.start) / page_size;
  }
  const auto collected = clock::now();
  PageWriter writer(task.pid, proc.open("mem", O_RDONLY), images.create_raw(image::type::pages, task.pages_id),
                    images.outbox(), abandoned);
  write_pagemap(images, task, writer.write(sources));
  saved.stats.written = writer.bytes() / page_size;
  saved.stats.collect_us = us(collected - began);
  saved.stats.write_us = us(clock::now() - collected);
  return saved;
}

void add_guards(const SavedPages& saved, images::mm_entry& mm) {
  for (const auto& region : saved.guards) {
    auto& vma = *mm.add_vmas();
    vma.set_start(region.start), vma.set_end(region.end), vma.set_pgoff(0), vma.set_shmid(0), vma.set_prot(0);
    vma.set_flags(0), vma.set_status(guard), vma.set_fd(-1);
  }
}

}  // namespace criu::memory
