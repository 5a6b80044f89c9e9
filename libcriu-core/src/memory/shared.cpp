// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/shared.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <pagemap.pb.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/error.hpp"
#include "dump_context.hpp"
#include "files/common.hpp"
#include "memory/pages.hpp"
#include "namespaces/steward.hpp"
#include "restore_context.hpp"

namespace criu::memory {

using base::check;
using base::Error;

namespace {

constexpr std::uint32_t huge_shift = 26;       // MAP_HUGE_SHIFT, MFD_HUGE_SHIFT
constexpr std::uint32_t usual_huge_code = 21;  // where none is given
constexpr std::uint32_t sealing_refused = 1;   // exactly F_SEAL_SEAL: made without MFD_ALLOW_SEALING
constexpr std::uint64_t largest_object = std::uint64_t{1} << 62;
constexpr std::size_t piece = 1 << 20;
// Linux 6.3.
constexpr unsigned mfd_noexec_seal = 8, mfd_exec = 0x10;
constexpr std::uint32_t seal_exec = 0x20;

// The link of shared anonymous memory.
constexpr const char* dev_zero = "/dev/zero";

std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

// The page size of an object of huge pages; 0: usual pages.
std::uint64_t huge_page_size(int fd) {
  struct statfs fs {};
  return ::fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC ? static_cast<std::uint64_t>(fs.f_bsize) : 0;
}

// ---- restore ----

int create_memfd(const char* name, unsigned flags, bool no_exec) {
  // Kernels before 6.3 do not know the two; later ones complain when neither is given.
  const int fd = ::memfd_create(name, flags | (no_exec ? mfd_noexec_seal : mfd_exec));
  return fd >= 0 || errno != EINVAL || no_exec ? fd : ::memfd_create(name, flags);
}

}  // namespace

base::Fd open_own_mapping(std::uint64_t start, std::uint64_t end, int mode) {
  const auto range = fmt::format("{:x}-{:x}", start, end);
  base::Fd fd(::open(("/proc/self/map_files/" + range).c_str(), mode | O_CLOEXEC));
  const bool refused = !fd && (errno == EPERM || errno == EACCES);
  if (const auto* steward = namespaces::Steward::current(); refused && steward != nullptr) {
    fd = steward->open_mapping(range, mode);
  }
  return fd;
}

namespace {

// Looks like any other shared anonymous memory, which a memfd would not: mapped by us for a moment and opened there.
base::Fd create_anonymous(std::uint64_t size, unsigned huge_flags, const std::string& what) {
  const auto code = huge_flags >> huge_shift & 63;
  const auto huge = std::uint64_t{1} << (code != 0 ? code : usual_huge_code);
  const auto length = round_up(size, huge_flags != 0 ? huge : page_size);
  const int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;
  void* at = ::mmap(nullptr, length, PROT_NONE,
                    huge_flags != 0 ? flags | MAP_HUGETLB | static_cast<int>(huge_flags & ~7U) : flags, -1, 0);
  const base::Mapping mapping(at, length);
  if (!mapping) {
    throw Error("make", what, errno);
  }
  const auto start = reinterpret_cast<std::uintptr_t>(at);
  auto fd = open_own_mapping(start, start + length, O_RDWR);
  check(fd.get(), "open", what, "needs CAP_CHECKPOINT_RESTORE");
  return fd;
}

// hugetlbfs has no write.
void write_mapped(int fd, const Pagemap& pagemap, const Run& run, std::uint64_t huge, const std::string& what) {
  const auto start = run.start / huge * huge;
  const auto length = round_up(run.start + run.size, huge) - start;
  const base::Mapping mapping(
      ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(start)), length);
  if (!mapping) {
    throw Error("map", what, errno, "are enough huge pages reserved?");
  }
  for (std::uint64_t done = 0; done < run.size;) {
    const auto got = check(::pread(pagemap.fd(run), mapping.data() + (run.start - start) + done, run.size - done,
                                   static_cast<off_t>(run.offset + done)),
                           "read the contents of", what);
    if (got == 0) {
      throw Error("corrupt checkpoint", "the contents of " + what + " end early", 0);
    }
    done += static_cast<std::uint64_t>(got);
  }
}

void write_run(int fd, const Pagemap& pagemap, const Run& run, std::byte* buffer, const std::string& what) {
  for (std::uint64_t done = 0; done < run.size;) {
    const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(piece, run.size - done));
    const auto got = check(::pread(pagemap.fd(run), buffer, part, static_cast<off_t>(run.offset + done)),
                           "read the contents of", what);
    if (got == 0) {
      throw Error("corrupt checkpoint", "the contents of " + what + " end early", 0);
    }
    for (ssize_t written = 0; written < got;) {
      written += check(::pwrite(fd, buffer + written, static_cast<std::size_t>(got - written),
                                static_cast<off_t>(run.start + done) + written),
                       "fill", what);
    }
    done += static_cast<std::uint64_t>(got);
  }
}

}  // namespace

void fill_object(const RestoreContext& context, int fd, std::uint64_t shmid, std::uint64_t size,
                 const std::string& what) {
  const auto pagemap = Pagemap::read(context.images, image::type::shmem_pagemap, shmid, true);
  const auto huge = huge_page_size(fd);
  const auto end = round_up(size, huge != 0 ? huge : page_size);
  const auto buffer = std::make_unique<std::byte[]>(piece);
  for (const auto& run : pagemap.runs()) {
    if (run.start > end || run.size > end - run.start) {
      throw Error("corrupt checkpoint", fmt::format("{} has pages behind its end", what), 0);
    }
    if (huge != 0) {
      write_mapped(fd, pagemap, run, huge, what);
    } else {
      write_run(fd, pagemap, run, buffer.get(), what);
    }
  }
  // The last page was written as a whole.
  if (huge == 0 && size % page_size != 0) {
    check(::ftruncate(fd, static_cast<off_t>(size)), "set the size of", what);
  }
}

namespace {

void check_inode(const images::memfd_inode_entry& entry) {
  const auto huge = entry.hugetlb_flag();
  constexpr std::uint32_t huge_bits = MFD_HUGETLB | std::uint32_t{63} << huge_shift;
  if (entry.size() > largest_object || (huge & ~huge_bits) != 0 || (huge != 0 && (huge & MFD_HUGETLB) == 0) ||
      entry.name().find('\0') != std::string::npos) {
    throw Error("corrupt image", fmt::format("memfd.img: object {}", entry.inode_id()), 0);
  }
}

base::Fd restore_inode(const RestoreContext& context, const images::memfd_inode_entry& entry) {
  check_inode(entry);
  const auto what = fmt::format("memory object '{}' ({})", entry.name(), entry.inode_id());
  base::Fd fd;
  // With a size code of 0 the huge pages are the default ones; as anonymous memory too.
  if (entry.name() == dev_zero && entry.size() > 0 && entry.hugetlb_flag() == 0) {
    fd = create_anonymous(entry.size(), 0, what);
  } else {
    const auto flags = MFD_CLOEXEC | (entry.seals() != sealing_refused ? MFD_ALLOW_SEALING : 0) | entry.hugetlb_flag();
    fd = base::Fd(check(
        create_memfd(entry.name().c_str(), flags, (entry.seals() & seal_exec) != 0 && entry.seals() != sealing_refused),
        "make", what));
    check(::ftruncate(fd.get(), static_cast<off_t>(entry.size())), "set the size of", what);
  }
  if (entry.size() > 0) {
    fill_object(context, fd.get(), entry.shmid(), entry.size(), what);
  }
  struct stat st {};
  check(::fstat(fd.get(), &st), "stat", what);
  if (st.st_uid != entry.uid() || st.st_gid != entry.gid()) {
    check(::fchown(fd.get(), entry.uid(), entry.gid()), "set the owner of", what);
  }
  if (entry.has_mode() && (st.st_mode & 07777) != (entry.mode() & 07777)) {
    check(::fchmod(fd.get(), entry.mode() & 07777), "set the mode of", what);
  }
  return fd;
}

}  // namespace

void SharedObjects::restore(const RestoreContext& context) {
  restore_memfds(context);
  restore_anonymous(context);
}

void SharedObjects::restore_memfds(const RestoreContext& context) {
  auto reader = context.images.open(image::type::memfd_inode);
  images::memfd_inode_entry entry;
  while (reader && reader->next(entry)) {
    Object object;
    // One that is given is used as it is: its contents and seals are the caller's.
    const auto key = "/memfd:" + entry.name();
    if (const int given = context.objects.inherited.find(key); given >= 0) {
      object.fd = context.internal(files::copy_inherited(given, key));
    } else {
      object = {context.internal(restore_inode(context, entry)), entry.seals()};
    }
    if (!memfds_.emplace(entry.inode_id(), std::move(object)).second) {
      throw Error("corrupt image", fmt::format("memfd.img: object {} is there twice", entry.inode_id()), 0);
    }
  }
}

void SharedObjects::restore_anonymous(const RestoreContext& context) {
  struct Wanted {
    std::uint64_t size = 0;
    std::uint32_t huge = 0;
  };
  std::map<std::uint64_t, Wanted> wanted;
  for (const auto& task : context.checkpoint.tasks) {
    for (const auto& vma : task->mm.vmas()) {
      if ((vma.status() & anon_shared) == 0 || (vma.status() & (Status::memfd | sysv_ipc)) != 0) {
        continue;
      }
      auto& object = wanted[vma.shmid()];
      const auto end = vma.pgoff() + (vma.end() - vma.start());
      if (end < vma.pgoff() || end > largest_object) {
        throw Error("corrupt checkpoint", fmt::format("area {:x} of {}", vma.start(), task->name()), 0);
      }
      object.size = std::max(object.size, end);
      if ((vma.flags() & MAP_HUGETLB) != 0) {
        object.huge = MFD_HUGETLB | (vma.flags() >> huge_shift & 63) << huge_shift;
      }
    }
  }
  for (const auto& [shmid, object] : wanted) {
    const auto what = fmt::format("shared memory {}", shmid);
    Object made{context.internal(create_anonymous(object.size, object.huge, what)), 0};
    fill_object(context, made.fd.get(), shmid, object.size, what);
    anonymous_.emplace(shmid, std::move(made));
  }
}

const SharedObjects::Object& SharedObjects::memfd(std::uint64_t inode_id, const std::string& referrer) const {
  const auto found = memfds_.find(inode_id);
  if (found == memfds_.end()) {
    throw Error("corrupt checkpoint",
                fmt::format("{} refers to memory object {}, which memfd.img does not have", referrer, inode_id), 0);
  }
  return found->second;
}

const SharedObjects::Object& SharedObjects::anonymous(std::uint64_t shmid, const std::string& referrer) const {
  const auto found = anonymous_.find(shmid);
  if (found == anonymous_.end()) {
    throw Error("corrupt checkpoint", fmt::format("{} refers to shared memory {}, which is not there", referrer, shmid),
                0);
  }
  return found->second;
}

void SharedObjects::seal() const {
  for (const auto& [id, object] : memfds_) {
    const auto now = ::fcntl(object.fd.get(), F_GET_SEALS);
    const auto missing = now < 0 ? 0 : object.seals & ~static_cast<std::uint32_t>(now);
    if (missing != 0) {
      check(::fcntl(object.fd.get(), F_ADD_SEALS, static_cast<int>(missing)), "seal",
            fmt::format("memory object {}", id));
    }
  }
}

// ---- dump ----

dev_t shm_device() {
  static const dev_t device = [] {
    const base::Fd probe(check(::memfd_create("probe", MFD_CLOEXEC), "make a memfd"));
    struct stat st {};
    check(::fstat(probe.get(), &st), "stat", "a memfd");
    return st.st_dev;
  }();
  return device;
}

namespace {

class PagesWriter {
 public:
  PagesWriter(DumpContext& dump, std::uint32_t shmid, std::string what)
      : what_(std::move(what)),
        id_(dump.new_pages_id()),
        map_(dump.images.create(image::type::shmem_pagemap, shmid)),
        pages_(dump.images.create_raw(image::type::pages, id_)) {
    images::pagemap_head head;
    head.set_pages_id(id_);
    map_.write(head);
  }
  // Whole pages, ascending.
  void add(std::uint64_t offset, const std::byte* bytes, std::size_t size) {
    for (std::size_t done = 0; done < size;) {
      done +=
          static_cast<std::size_t>(check(::write(pages_.get(), bytes + done, size - done), "write pages of", what_));
    }
    if (pending_ != 0 && start_ + pending_ == offset) {
      pending_ += size;
      return;
    }
    flush();
    start_ = offset;
    pending_ = size;
  }
  void finish() {
    flush();
    map_.finish();
    check(::close(pages_.release()), "write pages of", what_);
  }

 private:
  void flush() {
    if (pending_ == 0) {
      return;
    }
    images::pagemap_entry entry;
    entry.set_vaddr(start_);
    entry.set_compat_nr_pages(0);
    entry.set_nr_pages(pending_ / page_size);
    entry.set_flags(4);  // present
    map_.write(entry);
    pending_ = 0;
  }

  std::string what_;
  std::uint32_t id_;
  image::Writer map_;
  base::Fd pages_;
  std::uint64_t start_ = 0, pending_ = 0;
};

// The data extents of a file on tmpfs, written from a mapping so that nothing is copied twice.
void save_extents(int fd, std::uint64_t size, PagesWriter& pages, const std::string& what) {
  constexpr std::uint64_t window = 64 << 20;
  const auto end = round_up(size, page_size);
  for (off_t at = 0;;) {
    const auto data = ::lseek(fd, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
      return;
    }
    check(data, "look for data in", what);
    const auto hole = check(::lseek(fd, data, SEEK_HOLE), "look for holes in", what);
    const auto stop = std::min(round_up(static_cast<std::uint64_t>(hole), page_size), end);
    for (auto from = static_cast<std::uint64_t>(data) / page_size * page_size; from < stop;) {
      const auto length = std::min(window, stop - from);
      const base::Mapping mapping(::mmap(nullptr, length, PROT_READ, MAP_SHARED, fd, static_cast<off_t>(from)), length);
      if (!mapping) {
        throw Error("map", what, errno);
      }
      pages.add(from, mapping.data(), length);
      from += length;
    }
    at = hole;
  }
}

// hugetlbfs cannot tell its holes, but reading one does not fill it.
void save_huge(int fd, std::uint64_t size, std::uint64_t huge, PagesWriter& pages, const std::string& what) {
  const auto part = std::min<std::uint64_t>(huge, 2 << 20);
  const auto buffer = std::make_unique<std::byte[]>(part);
  for (std::uint64_t at = 0; at < size; at += part) {
    const auto got =
        static_cast<std::uint64_t>(check(::pread(fd, buffer.get(), part, static_cast<off_t>(at)), "read", what));
    if (got == 0) {
      return;
    }
    if (buffer[0] != std::byte{0} || std::memcmp(buffer.get(), buffer.get() + 1, got - 1) != 0) {
      pages.add(at, buffer.get(), got / page_size * page_size);
    }
  }
}

std::string object_name(std::string link) {
  constexpr std::string_view deleted = " (deleted)", memfd_prefix = "/memfd:";
  if (link.ends_with(deleted)) {
    link.resize(link.size() - deleted.size());
  }
  return link.starts_with(memfd_prefix) ? link.substr(memfd_prefix.size()) : link;
}

std::uint32_t huge_flag(std::uint64_t huge) {
  return huge == 0 ? 0 : MFD_HUGETLB | static_cast<std::uint32_t>(__builtin_ctzll(huge)) << huge_shift;
}

}  // namespace

bool is_memory_object(const std::string& link, const struct stat& stat) {
  if (!S_ISREG(stat.st_mode) || stat.st_nlink != 0 || !link.ends_with(" (deleted)")) {
    return false;
  }
  // Huge pages live on mounts of their own, one for each size.
  const bool huge = stat.st_blksize > 64 << 10 && (link.starts_with("/memfd:") || link.starts_with("/anon_hugepage"));
  return huge || stat.st_dev == shm_device();
}

ObjectSaver::ObjectSaver(DumpContext& dump) : dump_(dump), image_(dump.images.create(image::type::memfd_inode)) {}

std::uint32_t ObjectSaver::save(int fd, const struct stat& stat, const std::string& link, const std::string& what) {
  const auto [known, is_new] =
      ids_.emplace(std::pair{stat.st_dev, stat.st_ino}, static_cast<std::uint32_t>(ids_.size() + 1));
  if (!is_new) {
    return known->second;
  }
  if (link.starts_with("/SYSV")) {
    throw Error("not supported by this version", what + " is System V shared memory", 0);
  }
  if (link.starts_with("/drm mm object") || link.starts_with("/i915")) {
    throw Error("cannot dump", what + " is memory of a graphics device", 0);
  }
  const auto reader = files::reopen(fd, O_RDONLY, what);
  // Objects of different filesystems can have the same inode number.
  auto shmid = static_cast<std::uint32_t>(stat.st_ino);
  while (!shmids_.insert(shmid).second) {
    ++shmid;
  }
  images::memfd_inode_entry entry;
  entry.set_name(object_name(link));
  entry.set_uid(dump_.users->user(stat.st_uid));
  entry.set_gid(dump_.users->group(stat.st_gid));
  entry.set_mode(stat.st_mode);
  entry.set_size(static_cast<std::uint64_t>(stat.st_size));
  entry.set_shmid(shmid);
  const auto seals = ::fcntl(reader.get(), F_GET_SEALS);
  entry.set_seals(seals < 0 ? sealing_refused : static_cast<std::uint32_t>(seals));
  entry.set_inode_id(known->second);
  if (const auto flag = huge_flag(huge_page_size(reader.get())); flag != 0) {
    entry.set_hugetlb_flag(flag);
  }
  if (stat.st_size > 0) {
    if (!dump_.look_only) {
      save_contents(reader.get(), stat, shmid, what);
    }
  }
  image_.write(entry);
  return known->second;
}

bool ObjectSaver::save_segment(int fd, const struct stat& stat, std::uint32_t id, const std::string& what) {
  if (!shmids_.insert(id).second) {
    return false;
  }
  save_contents(fd, stat, id, what);
  return true;
}

void ObjectSaver::save_contents(int fd, const struct stat& stat, std::uint32_t shmid, const std::string& what) {
  PagesWriter pages(dump_, shmid, what);
  const auto size = static_cast<std::uint64_t>(stat.st_size);
  if (const auto huge = huge_page_size(fd); huge != 0) {
    save_huge(fd, size, huge, pages, what);
  } else {
    save_extents(fd, size, pages, what);
  }
  pages.finish();
}

}  // namespace criu::memory
