// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/restore.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "files/regular.hpp"
#include "memory/buffer.hpp"
#include "restore_context.hpp"

namespace criu::memory {

using base::check;
using base::Error;

namespace {

constexpr std::uint64_t huge = 2 << 20;
// Smaller address spaces are filled faster by one thread than a second one starts.
constexpr std::uint64_t parallel_from = 16 << 20;
constexpr std::uint64_t piece = 4 << 20;
// The kernel refuses a mapping that is by itself more than there is memory, as ten thousand stacks are if mapped as
// one. Piece by piece it lets them grow together.
constexpr std::uint64_t most_at_once = 1 << 30;

std::byte* pointer(std::uint64_t address) { return reinterpret_cast<std::byte*>(address); }  // NOLINT

std::string where(const TaskImage& task, const images::vma_entry& vma) {
  return fmt::format("area {:x}-{:x} of {}", vma.start(), vma.end(), task.name());
}

// One job of reading: a run, or a piece of a large one, into one area.
struct Job {
  int fd;
  std::uint64_t offset, size;  // in that file; bytes
  std::byte* into;
  bool compare;
};

// Fills memory of this process through a buffer that stays in the cache. The kernel writes to it by its own mapping of
// the pages: a second copy, but no fault for every page, which takes longer than the copy and, under some hypervisors,
// ten times as long.
class Filler {
 public:
  // The buffer's own pages are faults, too, and dearer than system calls: for little to do a small one, for very little
  // one on the stack.
  explicit Filler(std::uint64_t most)
      : size_(most >= worth_a_large_buffer ? largest_buffer
              : most >= worth_a_buffer     ? small_buffer
                                           : sizeof tiny_[0]),
        on_stack_(size_ == sizeof tiny_[0]),
        mapped_(on_stack_ ? base::Mapping() : map_buffer(size_)),
        saved_(on_stack_ ? tiny_[0] : mapped_.data()) {}
  Filler(const Filler&) = delete;
  Filler& operator=(const Filler&) = delete;

  // Runs that follow each other in their file are read at once. Returns the number of jobs done, at least one.
  std::size_t fill(std::span<const Job> jobs) {
    const auto& first = jobs[0];
    parts_.clear();
    std::uint64_t bytes = 0;
    for (const auto& job : jobs) {
      if (job.compare != first.compare || job.fd != first.fd || job.offset != first.offset + bytes ||
          bytes + job.size > size_) {
        break;
      }
      parts_.push_back({job.into, job.size});
      bytes += job.size;
    }
    if (const auto count = parts_.size(); count > 0) {
      fill_parts(first, first.offset, bytes);
      return count;
    }
    for (std::uint64_t done = 0, part = 0; done < first.size; done += part) {
      part = std::min(size_, first.size - done);
      parts_.assign(1, {first.into + done, part});
      fill_parts(first, first.offset + done, part);
    }
    return 1;
  }

  // How many pages were equal to the parent's.
  std::uint64_t equal() const { return equal_; }

 private:
  static constexpr std::uint64_t worth_a_large_buffer = 4 << 20;
  static constexpr std::uint64_t worth_a_buffer = 1 << 20;
  static constexpr std::uint64_t largest_buffer = 256 << 10;
  static constexpr std::uint64_t small_buffer = 32 << 10;

  void fill_parts(const Job& job, std::uint64_t offset, std::uint64_t bytes) {
    read(job.fd, offset, bytes);
    from_.assign(1, {saved_, bytes});
    if (job.compare) {
      keep_differing();
    }
    write();
  }

  // Over memory inherited from the parent: pages that are equal stay shared. The task's own memory file is the one way
  // to look at them that neither faults nor, as process_vm_readv does since 5.19, makes them private.
  void keep_differing() {
    if (!memory_) {
      if (!on_stack_) {
        mapped_inherited_ = map_buffer(size_);
      }
      inherited_ = on_stack_ ? tiny_[1] : mapped_inherited_.data();
      memory_ = base::Fd(check(::open("/proc/self/mem", O_RDONLY | O_CLOEXEC), "open", "/proc/self/mem"));
    }
    from_.clear();
    auto parts = std::exchange(parts_, {});
    auto* saved = saved_;
    for (const auto& [into, size] : parts) {
      if (::pread(memory_.get(), inherited_, size, reinterpret_cast<off_t>(into)) != static_cast<ssize_t>(size)) {
        throw Error("read memory inherited from the parent", {}, errno);
      }
      for (std::uint64_t page = 0; page < size; page += page_size) {
        if (std::memcmp(inherited_ + page, saved + page, page_size) == 0) {
          ++equal_;
        } else {
          from_.push_back({saved + page, page_size});
          parts_.push_back({static_cast<std::byte*>(into) + page, page_size});
        }
      }
      saved += size;
    }
  }

  void read(int fd, std::uint64_t offset, std::uint64_t bytes) {
    for (std::uint64_t done = 0; done < bytes;) {
      const auto got = check(::pread(fd, saved_ + done, bytes - done, static_cast<off_t>(offset + done)), "read pages");
      if (got == 0) {
        throw Error("corrupt checkpoint", "a pages image became shorter while it was read", 0);
      }
      done += static_cast<std::uint64_t>(got);
    }
  }

  static std::span<iovec> advance(std::span<iovec> parts, std::size_t by) {
    while (!parts.empty() && by >= parts[0].iov_len) {
      by -= parts[0].iov_len;
      parts = parts.subspan(1);
    }
    if (by > 0) {
      parts[0] = {static_cast<std::byte*>(parts[0].iov_base) + by, parts[0].iov_len - by};
    }
    return parts;
  }

  // The kernel may write less than it was asked to: what is left of the parts goes on.
  void write() {
    for (std::span<iovec> from(from_), into(parts_); !into.empty();) {
      const auto put = ::process_vm_writev(::getpid(), from.data(), from.size(), into.data(), into.size(), 0);
      if (put <= 0) {
        throw Error("fill memory", fmt::format("at {}", into[0].iov_base), put < 0 ? errno : EFAULT);
      }
      from = advance(from, static_cast<std::size_t>(put));
      into = advance(into, static_cast<std::size_t>(put));
    }
  }

  std::byte tiny_[2][4096];
  std::uint64_t size_;
  bool on_stack_;
  base::Mapping mapped_, mapped_inherited_;
  std::byte *saved_, *inherited_ = nullptr;  // size_ bytes each
  base::Fd memory_;
  std::vector<iovec> from_, parts_;  // of no more pages than the buffer has
  std::uint64_t equal_ = 0;
};

bool same_area(const images::vma_entry& a, const images::vma_entry& b) {
  return a.start() == b.start() && a.end() == b.end() && a.status() == b.status() && a.flags() == b.flags() &&
         a.pgoff() == b.pgoff() && a.shmid() == b.shmid();
}

// The flags a private area is first mapped with: locking and the fixed place come later.
int private_flags(const images::vma_entry& vma) {
  return static_cast<int>((vma.flags() & ~static_cast<unsigned>(MAP_LOCKED)) | MAP_FIXED);
}

// Maps nothing there, if the range is free: neither used by anything of this program nor needed for its stack to grow.
bool hold(std::uint64_t start, std::uint64_t size) {
  constexpr std::uint64_t stack_room = 16 << 20;
  const auto stack = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
  if (start < stack && start + size > stack - stack_room) {
    return false;
  }
  return ::mmap(pointer(start), size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
                0) != MAP_FAILED;
}

// How an area is mapped until it is filled. A large one with nothing to fill in is mapped as it will be: reserved
// address space of terabytes must not count as memory to be had. Small ones are mapped like their neighbours.
std::uint32_t filling_protection(const images::vma_entry& vma, const std::vector<Run>& runs) {
  constexpr std::uint64_t small = 64 << 10;
  const auto run = std::upper_bound(runs.begin(), runs.end(), vma.start(),
                                    [](std::uint64_t at, const Run& r) { return at < r.start + r.size; });
  const bool filled = run != runs.end() && run->start < vma.end();
  const bool anonymous = (vma.flags() & MAP_ANONYMOUS) != 0;
  if (filled || (anonymous && vma.end() - vma.start() <= small)) {
    return vma.prot() | PROT_READ | PROT_WRITE;
  }
  return vma.prot();
}

// Jobs are taken some at a time, so that neighbours are read together.
class Fill {
 public:
  explicit Fill(const std::vector<Job>& jobs, std::uint64_t bytes) : jobs_(jobs), bytes_(bytes) {}

  // Returns how many pages were equal to the parent's.
  std::uint64_t run() {
    std::thread helper;
    if (bytes_ >= parallel_from) {
      helper = std::thread([this] { work(failures_[1]); });
    }
    work(failures_[0]);
    if (helper.joinable()) {
      helper.join();
    }
    for (const auto& failure : failures_) {
      if (failure) {
        std::rethrow_exception(failure);
      }
    }
    return equal_;
  }

 private:
  // The next jobs for one worker: as many as are worth the lock, and no more than leave the other something to do.
  std::span<const Job> take() {
    const std::lock_guard lock(mutex_);
    const auto first = next_;
    for (std::uint64_t bytes = 0; next_ < jobs_.size() && bytes < piece; ++next_) {
      bytes += jobs_[next_].size;
    }
    return {jobs_.data() + first, next_ - first};
  }

  void work(std::exception_ptr& failure) {
    try {
      Filler filler(bytes_);
      for (auto jobs = take(); !jobs.empty(); jobs = take()) {
        while (!jobs.empty()) {
          jobs = jobs.subspan(filler.fill(jobs));
        }
      }
      equal_ += filler.equal();
    } catch (...) {
      failure = std::current_exception();
      const std::lock_guard lock(mutex_);
      next_ = jobs_.size();
    }
  }

  const std::vector<Job>& jobs_;
  std::uint64_t bytes_;
  std::mutex mutex_;
  std::size_t next_ = 0;
  std::atomic<std::uint64_t> equal_{0};
  std::exception_ptr failures_[2];
};

}  // namespace

void Restored::study(const RestoreContext& context, const TaskImage& task) {
  pagemap_ = Pagemap::read(context.images, image::type::pagemap, task.entry.pid());
  vdso_ = plan_vdso(context.inherited.vdso, task, pagemap_);
  aio_rings_.read(task, pagemap_);
  pagemap_.close_files();
}

void Restored::fill(RestoreContext& context, const TaskImage& task, const Restored* parent) {
  map_areas(context, task, parent);
  if (parent != nullptr) {
    clear_pages_of(*parent);
  }
  pagemap_.open_files(context.images);
  read_pages(*context.shared, task);
  pagemap_.close_files();
}

// Finds out what is inherited, and gathers the rest. Areas that are near each other are parked at the same distance, so
// that the restorer can move them in one go and that they share page tables.
std::vector<Restored::Cluster> Restored::list_areas(const TaskImage& task, const Restored* parent) {
  constexpr std::uint64_t near = 16 << 20;
  std::vector<Cluster> clusters;
  const images::vma_entry* last = nullptr;
  for (const auto& vma : task.mm.vmas()) {
    if (!is_filled(vma)) {
      continue;
    }
    const auto* theirs = parent != nullptr && is_private(vma) ? parent->find(vma.start()) : nullptr;
    if (theirs != nullptr && same_area(*theirs->vma, vma)) {
      parked_.push_back({&vma, theirs->at, true, theirs->prot});
      last = nullptr;
      continue;
    }
    if (last == nullptr || vma.start() - last->end() > near) {
      clusters.push_back({parked_.size(), 0, vma.start(), 0});
    }
    parked_.push_back({&vma, 0, false, 0});
    clusters.back().end = parked_.size();
    clusters.back().size = vma.end() - clusters.back().start;
    last = &vma;
  }
  return clusters;
}

// The parent may have had nothing to fill in where this task has.
void Restored::make_writable(const TaskImage& task) {
  for (auto& area : parked_) {
    const auto wanted = filling_protection(*area.vma, pagemap_.runs());
    if (!area.inherited || (wanted & PROT_WRITE) == 0 || (area.prot & PROT_WRITE) != 0) {
      continue;
    }
    area.prot = wanted;
    if (::mprotect(pointer(area.at), area.vma->end() - area.vma->start(), static_cast<int>(wanted)) < 0) {
      throw Error("make writable", where(task, *area.vma), errno);
    }
  }
}

void Restored::park_at(const Cluster& cluster, std::uint64_t place) {
  for (auto i = cluster.first; i < cluster.end; ++i) {
    parked_[i].at = place + (parked_[i].vma->start() - cluster.start);
  }
}

// In one range for all; each keeps its place within a huge page, so that huge pages can be moved as such.
void Restored::park_beside(RestoreContext& context, const std::vector<Cluster>& clusters) {
  std::uint64_t room = 0;
  std::vector<std::uint64_t> places;
  for (const auto& cluster : clusters) {
    places.push_back((room + huge - 1) / huge * huge + cluster.start % huge);
    room = places.back() + cluster.size;
  }
  if (clusters.empty()) {
    return;
  }
  Space space;
  space.take(context.inherited.mappings);
  space.take(context.needed_addresses);
  const auto base = space.map(room, huge, PROT_NONE, MAP_NORESERVE);
  context.inherited.mappings.push_back({base, base + room});
  for (std::size_t i = 0; i < clusters.size(); ++i) {
    park_at(clusters[i], base + places[i]);
  }
}

void Restored::map_areas(RestoreContext& context, const TaskImage& task, const Restored* parent) {
  const auto& runs = pagemap_.runs();
  auto clusters = list_areas(task, parent);
  make_writable(task);
  // Each is held as a whole first: nothing else may come to lie between its areas meanwhile.
  std::erase_if(clusters, [&](const Cluster& cluster) {
    const bool free = hold(cluster.start, cluster.size);
    if (free) {
      park_at(cluster, cluster.start);
    }
    return free;
  });
  park_beside(context, clusters);
  for (std::size_t first = 0; first < parked_.size();) {
    std::size_t next = first + 1;
    if (!parked_[first].inherited) {
      parked_[first].prot = filling_protection(*parked_[first].vma, runs);
      for (; next < parked_.size() && !parked_[next].inherited; ++next) {
        parked_[next].prot = filling_protection(*parked_[next].vma, runs);
        if (!mapped_alike(parked_[next - 1], parked_[next])) {
          break;
        }
      }
      map_run(context, task, first, next);
    }
    first = next;
  }
}

// Whether one mapping serves both.
bool Restored::mapped_alike(const Parked& a, const Parked& b) {
  constexpr std::uint64_t huge_pages = std::uint64_t{1} << MADV_HUGEPAGE | std::uint64_t{1} << MADV_NOHUGEPAGE;
  return !a.inherited && !b.inherited && (a.vma->flags() & MAP_ANONYMOUS) != 0 &&
         (a.vma->flags() & MAP_GROWSDOWN) == 0 && a.vma->flags() == b.vma->flags() && a.prot == b.prot &&
         a.vma->end() == b.vma->start() && a.at + (a.vma->end() - a.vma->start()) == b.at &&
         (a.vma->madv() & huge_pages) == (b.vma->madv() & huge_pages);
}

void Restored::map_run(const RestoreContext& context, const TaskImage& task, std::size_t first, std::size_t end) {
  const auto& vma = *parked_[first].vma;
  const auto size = parked_[end - 1].vma->end() - vma.start();
  const int fd = (vma.flags() & MAP_ANONYMOUS) != 0 ? -1 : file_for(context, task, vma);
  const auto step = fd < 0 ? most_at_once : size;
  for (std::uint64_t done = 0; done < size; done += step) {
    if (::mmap(pointer(parked_[first].at + done), std::min(step, size - done), static_cast<int>(parked_[first].prot),
               private_flags(vma), fd, static_cast<off_t>(fd < 0 ? 0 : vma.pgoff())) == MAP_FAILED) {
      throw Error("map", where(task, vma), errno);
    }
  }
  for (const int advice : {MADV_HUGEPAGE, MADV_NOHUGEPAGE}) {
    if ((vma.madv() >> advice & 1) != 0) {
      ::madvise(pointer(parked_[first].at), size, advice);  // repeated by the restorer, where a failure counts
    }
  }
}

const Restored::Parked* Restored::find(std::uint64_t address) const {
  auto area = std::upper_bound(parked_.begin(), parked_.end(), address,
                               [](std::uint64_t a, const Parked& p) { return a < p.vma->end(); });
  return area != parked_.end() && area->vma->start() <= address ? &*area : nullptr;
}

// Pages that the parent had filled and this task does not have: back to what the bare mapping shows.
void Restored::clear_pages_of(const Restored& parent) const {
  const auto& runs = pagemap_.runs();
  auto mine = runs.begin();
  for (const auto& theirs : parent.pagemap_.runs()) {
    for (auto at = theirs.start; at < theirs.start + theirs.size;) {
      while (mine != runs.end() && mine->start + mine->size <= at) {
        ++mine;
      }
      auto end = theirs.start + theirs.size;
      if (mine != runs.end() && mine->start <= at) {
        at = std::min(end, mine->start + mine->size);
        continue;
      }
      if (mine != runs.end()) {
        end = std::min(end, mine->start);
      }
      const auto* area = find(at);
      if (area != nullptr) {
        end = std::min(end, area->vma->end());
        if (area->inherited) {
          ::madvise(pointer(area->at + (at - area->vma->start())), end - at, MADV_DONTNEED);
        }
      } else {
        end = at + page_size;
      }
      at = end;
    }
  }
}

void Restored::read_pages(restorer::Shared& shared, const TaskImage& task) {
  std::vector<Job> jobs;
  std::uint64_t bytes = 0;
  for (const auto& run : pagemap_.runs()) {
    for (std::uint64_t done = 0, part = 0; done < run.size; done += part) {
      const auto at = run.start + done;
      const auto* area = find(at);
      if (area == nullptr) {
        const auto vma = std::find_if(task.mm.vmas().begin(), task.mm.vmas().end(), [at](const auto& v) {
          return v.start() <= at && at < v.end() && (v.status() & (vdso | aio_ring | shadow_stack)) != 0;
        });
        if (vma == task.mm.vmas().end()) {
          throw Error("corrupt checkpoint", fmt::format("page {:#x} of {} lies in no private area", at, task.name()),
                      0);
        }
        // This kernel's vDSO takes the place of the saved one.
        part = std::min(run.size - done, vma->end() - at);
        continue;
      }
      part = std::min({run.size - done, area->vma->end() - at, piece});
      jobs.push_back(
          {pagemap_.fd(run), run.offset + done, part, pointer(area->at + (at - area->vma->start())), area->inherited});
      bytes += part;
    }
  }
  const auto equal = Fill(jobs, bytes).run();
  std::uint64_t compared = 0;
  for (const auto& job : jobs) {
    compared += job.compare ? job.size / page_size : 0;
  }
  __atomic_add_fetch(&shared.pages_compared, compared, __ATOMIC_RELAXED);
  __atomic_add_fetch(&shared.pages_skipped_cow, equal, __ATOMIC_RELAXED);
  __atomic_add_fetch(&shared.pages_restored, bytes / page_size - equal, __ATOMIC_RELAXED);
}

// The shared object of an area, opened as the area's own file was: a sealed one cannot be mapped as if for writing.
int Restored::shared_file_for(const RestoreContext& context, const TaskImage& task, const images::vma_entry& vma) {
  const auto what = where(task, vma);
  if ((vma.status() & memfd) == 0) {
    return context.shared_objects.anonymous(vma.shmid(), what).fd.get();
  }
  const auto id = static_cast<std::uint32_t>(vma.shmid());
  const auto& object =
      context.shared_objects.memfd(context.checkpoint.file(images::MEMFD, id, what).memfd().inode_id(), what);
  const bool read_only =
      (object.seals & F_SEAL_WRITE) != 0 || (vma.has_fdflags() && (vma.fdflags() & O_ACCMODE) == O_RDONLY);
  if (!read_only) {
    return object.fd.get();
  }
  auto& fd = files_[{vma.shmid(), O_RDONLY}];
  if (!fd) {
    fd = files::open_path(context, id, O_RDONLY, what);
  }
  return fd.get();
}

int Restored::file_for(const RestoreContext& context, const TaskImage& task, const images::vma_entry& vma) {
  if ((vma.status() & (memfd | anon_shared)) != 0) {
    return shared_file_for(context, task, vma);
  }
  if ((vma.status() & io_uring) != 0) {
    auto& ring = files_[{vma.shmid(), O_RDWR}];
    if (!ring) {
      ring = context.files.fetch(context, static_cast<std::uint32_t>(vma.shmid()), where(task, vma));
    }
    return ring.get();
  }
  int mode = O_RDONLY;
  if (vma.has_fdflags()) {
    mode = static_cast<int>(vma.fdflags() & O_ACCMODE);
  } else if ((vma.status() & file_shared) != 0 && (vma.prot() & PROT_WRITE) != 0) {
    mode = O_RDWR;
  }
  auto& fd = files_[{vma.shmid(), mode}];
  if (!fd) {
    fd = files::open_path(context, static_cast<std::uint32_t>(vma.shmid()), mode, where(task, vma));
  }
  return fd.get();
}

std::vector<restorer::Area> Restored::areas(const RestoreContext& context, const TaskImage& task) {
  std::vector<restorer::Area> result;
  for (const auto& vma : task.mm.vmas()) {
    if ((vma.status() & (vsyscall | vdso | vvar | guard)) != 0 && !is_filled(vma)) {
      continue;
    }
    restorer::Area area{};
    area.start = vma.start();
    area.end = vma.end();
    area.prot = vma.prot();
    area.advice = vma.madv();
    area.lock = (vma.flags() & MAP_LOCKED) == 0 ? 0 : vma.extension().lock_on_fault() ? 2 : 1;
    area.key = is_execute_only(vma) ? 0 : vma.extension().protection_key();
    area.fd = -1;
    if (is_filled(vma)) {
      area.moves = 1;
      area.parked = find(vma.start())->at;
      area.protect = find(vma.start())->prot != vma.prot() ? 1 : 0;
    } else if ((vma.status() & aio_ring) != 0) {
      area.moves = 1;
      area.parked = aio_rings_.find(vma).start;
      area.protect = vma.prot() != (PROT_READ | PROT_WRITE) ? 1 : 0;
    } else if ((vma.status() & sysv_ipc) != 0) {
      const auto& part = attachments_.find(vma);
      area.moves = 1;
      area.parked = part.at.start;
      area.protect = part.prot != vma.prot() ? 1 : 0;
    } else if ((vma.status() & (file_shared | anon_shared | io_uring)) != 0) {
      area.flags = vma.flags() & ~static_cast<unsigned>(MAP_LOCKED | MAP_ANONYMOUS);
      area.fd = file_for(context, task, vma);
      area.offset = vma.pgoff();
      area.placed = (vma.status() & io_uring) != 0 ? 1 : 0;
    } else {
      throw Error("not supported by this version", fmt::format("{} (status {:#x})", where(task, vma), vma.status()), 0);
    }
    result.push_back(area);
  }
  return result;
}

std::vector<restorer::Range> Restored::guards(const TaskImage& task) const {
  std::vector<restorer::Range> result;
  for (const auto& vma : task.mm.vmas()) {
    if ((vma.status() & guard) != 0) {
      result.push_back({vma.start(), vma.end()});
    }
  }
  return result;
}

std::span<std::byte> Restored::saved_vdso() const {
  return {pointer(find(vdso_.code->start())->at), vdso_.code->end() - vdso_.code->start()};
}

std::vector<Interval> Restored::parked() const {
  auto result = attachments_.parked();
  for (const auto& [home, parked] : aio_rings_.parked()) {
    result.push_back(parked);
  }
  for (const auto& area : parked_) {
    const auto end = area.at + (area.vma->end() - area.vma->start());
    if (!result.empty() && result.back().end == area.at) {
      result.back().end = end;
    } else {
      result.push_back({area.at, end});
    }
  }
  return result;
}

}  // namespace criu::memory
