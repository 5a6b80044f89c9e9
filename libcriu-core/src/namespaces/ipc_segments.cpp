// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/ipc_segments.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "log.hpp"
#include "memory/pages.hpp"
#include "memory/shared.hpp"
#include "namespaces/ipc_objects.hpp"
#include "restore_context.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

constexpr unsigned removed_bit = 01000, locked_bit = 02000;  // SHM_DEST, SHM_LOCKED of the kernel
constexpr std::uint32_t hugetlb_bit = 04000;                 // SHM_HUGETLB
constexpr unsigned huge_shift = 26;
constexpr std::uint64_t largest_segment = std::uint64_t{1} << 62;
constexpr std::size_t piece = 1 << 20;

std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

// Attached by this process for a moment.
class Attached {
 public:
  Attached(int id, int flags, const std::string& what) : at_(::shmat(id, nullptr, flags)) {
    if (at_ == reinterpret_cast<void*>(-1)) {  // NOLINT: what shmat(2) returns
      throw Error("attach", what, errno);
    }
  }
  ~Attached() { ::shmdt(at_); }
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;

  // Its memory as a file. The area in maps is as long as whole pages are, and nobody tells how large these are.
  base::Fd open(std::uint64_t size, int mode, const std::string& what) const {
    const auto start = reinterpret_cast<std::uintptr_t>(at_);
    base::Fd file;
    for (const std::uint64_t page : {memory::page_size, std::uint64_t{2} << 20, std::uint64_t{1} << 30}) {
      file = memory::open_own_mapping(start, start + round_up(size, page), mode);
      if (file || errno != ENOENT) {
        break;
      }
    }
    check(file.get(), "open", what, "needs CAP_CHECKPOINT_RESTORE");
    return file;
  }

 private:
  void* at_;
};

std::uint64_t page_size_of(int fd) {
  struct statfs fs {};
  check(::fstatfs(fd, &fs), "look at", "a segment");
  return static_cast<std::uint64_t>(fs.f_bsize);
}

// The page size of a segment by what an image says of it; the kernel's usual huge pages have code 0.
std::uint64_t page_size_of(const images::ipc_shm_entry& entry) {
  if ((entry.hugetlb_flag() & hugetlb_bit) == 0) {
    return memory::page_size;
  }
  const auto code = entry.hugetlb_flag() >> huge_shift & 63;
  return std::uint64_t{1} << (code == 0 ? 21 : code);
}

base::Fd open_segment(int id, const images::ipc_shm_entry& entry, int mode, const std::string& what) {
  const Attached attached(id, mode == O_RDONLY ? SHM_RDONLY : 0, what);
  return attached.open(entry.size(), mode, what);
}

// ---- dump ----

class SegmentSaver {
 public:
  SegmentSaver(DumpContext& dump, memory::ObjectSaver& objects, std::uint32_t ns_id, bool own)
      : dump_(dump), objects_(objects), own_(own), image_(dump.images.create(image::type::ipcns_shm, ns_id)) {}

  void save(int id, const shmid_ds& segment) {
    images::ipc_shm_entry entry;
    save_desc(*dump_.users, segment.shm_perm, id, *entry.mutable_desc());
    entry.set_size(segment.shm_segsz);
    const auto what = name_object("System V segment", entry.desc());
    const auto seen = dump_.segments.all().find(static_cast<std::uint32_t>(id));
    const bool attached = seen != dump_.segments.all().end();
    if (!own_) {
      entry.mutable_extension()->set_shared_namespace(true);
      if (segment.shm_nattch > seen->second.areas) {
        LOG_WARN("{} is attached by processes outside the tree, too: a restore will need it as they leave it", what);
        entry.mutable_extension()->set_used_outside(true);
      }
    }
    if (dump_.look_only) {
      return;
    }
    const auto fd = attached ? base::Fd(check(::open(seen->second.file.c_str(), O_RDONLY | O_CLOEXEC), "open", what))
                             : Attached(id, SHM_RDONLY, what).open(entry.size(), O_RDONLY, what);
    if (const auto page = page_size_of(fd.get()); page != memory::page_size) {
      entry.set_hugetlb_flag(hugetlb_bit | static_cast<std::uint32_t>(__builtin_ctzll(page)) << huge_shift);
    }
    struct stat stat {};
    check(::fstat(fd.get(), &stat), "stat", what);
    entry.set_in_pagemaps(objects_.save_segment(fd.get(), stat, entry.desc().id(), what));
    image_.write(entry);
    if (!entry.in_pagemaps()) {
      save_inline(fd.get(), entry, what);
    }
  }
  void finish() { image_.finish(); }

 private:
  void save_inline(int fd, const images::ipc_shm_entry& entry, const std::string& what) {
    const auto buffer = std::make_unique<std::byte[]>(piece);
    const auto size = round_up(entry.size(), 4);
    for (std::uint64_t done = 0; done < size;) {
      const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(piece, size - done));
      std::memset(buffer.get(), 0, part);
      const auto wanted = std::min<std::uint64_t>(part, entry.size() - std::min(entry.size(), done));
      check(::pread(fd, buffer.get(), wanted, static_cast<off_t>(done)), "read", what);
      image_.raw({buffer.get(), part});
      done += part;
    }
  }

  DumpContext& dump_;
  memory::ObjectSaver& objects_;
  bool own_;
  image::Writer image_;
};

void check_seen(const memory::SeenSegments::Seen& seen, int found, const shmid_ds& segment) {
  if (found < 0 || segment.shm_nattch < seen.areas || round_up(segment.shm_segsz, memory::page_size) < seen.reach) {
    throw Error("cannot dump", seen.where, 0,
                "it is System V shared memory of an IPC namespace that the task has left");
  }
}

}  // namespace

void save_segments(DumpContext& dump, memory::ObjectSaver& objects, std::uint32_t ns_id, bool own) {
  SegmentSaver saver(dump, objects, ns_id, own);
  for (const auto& [id, seen] : dump.segments.all()) {
    shmid_ds segment{};
    const int found = ::shmctl(static_cast<int>(id), IPC_STAT, &segment);
    dump.attempt([&, id = id, &seen = seen] {
      check_seen(seen, found, segment);
      saver.save(static_cast<int>(id), segment);
    });
  }
  if (own) {
    shm_info info{};
    const int last = check(::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info)), "count System V segments");
    for (int index = 0; info.used_ids > 0 && index <= last; ++index) {
      shmid_ds segment{};
      const int id = ::shmctl(index, SHM_STAT, &segment);
      if (id >= 0 && !dump.segments.all().contains(static_cast<std::uint32_t>(id))) {
        dump.attempt([&] { saver.save(id, segment); });
      }
    }
  }
  saver.finish();
}

// ---- restore ----

namespace {

bool is_zero(const std::byte* bytes, std::size_t size) {
  return size == 0 || (bytes[0] == std::byte{0} && std::memcmp(bytes, bytes + 1, size - 1) == 0);
}

// Whether an existing segment has the contents that were saved.
bool has_saved_contents(const RestoreContext& context, int fd, const images::ipc_shm_entry& entry,
                        const std::string& what) {
  const auto pagemap = memory::Pagemap::read(context.images, image::type::shmem_pagemap, entry.desc().id(), true);
  const auto size = round_up(entry.size(), memory::page_size);
  const base::Mapping now(::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0), size);
  if (!now) {
    throw Error("map", what, errno);
  }
  const auto buffer = std::make_unique<std::byte[]>(piece);
  std::uint64_t at = 0;
  for (const auto& run : pagemap.runs()) {
    if (run.start > size || run.size > size - run.start) {
      throw Error("corrupt image", what + " has pages behind its end", 0);
    }
    if (!is_zero(now.data() + at, run.start - at)) {
      return false;
    }
    for (std::uint64_t done = 0; done < run.size;) {
      const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(piece, run.size - done));
      const auto got = check(::pread(pagemap.fd(run), buffer.get(), part, static_cast<off_t>(run.offset + done)),
                             "read the contents of", what);
      if (got == 0 || std::memcmp(now.data() + run.start + done, buffer.get(), static_cast<std::size_t>(got)) != 0) {
        return false;
      }
      done += static_cast<std::uint64_t>(got);
    }
    at = run.start + run.size;
  }
  return is_zero(now.data() + at, size - at);
}

void read_inline(image::Reader& reader, int fd, const images::ipc_shm_entry& entry, const std::string& what) {
  const auto padded = round_up(entry.size(), 4);
  if (padded > reader.left()) {
    throw Error("corrupt image", reader.name() + ": the contents of " + what + " end early", 0);
  }
  for (std::uint64_t done = 0; done < padded;) {
    const auto bytes = reader.raw(std::min<std::uint64_t>(piece, padded - done));
    const auto wanted = std::min<std::uint64_t>(bytes.size(), entry.size() - std::min(entry.size(), done));
    if (!is_zero(bytes.data(), wanted)) {
      check(::pwrite(fd, bytes.data(), wanted, static_cast<off_t>(done)), "fill", what);
    }
    done += bytes.size();
  }
}

void check_entry(const images::ipc_shm_entry& entry, const std::string& image) {
  check_desc(entry.desc(), image.c_str());
  constexpr std::uint32_t huge_bits = hugetlb_bit | std::uint32_t{63} << huge_shift;
  if (entry.size() == 0 || entry.size() > largest_segment || (entry.hugetlb_flag() & ~huge_bits) != 0 ||
      (entry.hugetlb_flag() != 0 && (entry.hugetlb_flag() & hugetlb_bit) == 0)) {
    throw Error("corrupt image", fmt::format("{}: segment {}", image, entry.desc().id()), 0);
  }
}

}  // namespace

void RestoredSegments::restore(const RestoreContext& context, std::uint32_t ns_id, bool own) {
  auto reader = context.images.open(image::type::ipcns_shm, ns_id);
  images::ipc_shm_entry entry;
  while (reader && reader->next(entry)) {
    check_entry(entry, reader->name());
    shmid_ds now{};
    if (own ||
        (::shmctl(static_cast<int>(entry.desc().id()), IPC_STAT, &now) < 0 && !entry.extension().used_outside())) {
      make(context, entry, *reader, own);
      continue;
    }
    take_up(context, entry);
    if (!entry.in_pagemaps()) {
      reader->skip(round_up(entry.size(), 4));
    }
  }
}

void RestoredSegments::take_up(const RestoreContext& context, const images::ipc_shm_entry& entry) {
  const auto what = name_object("System V segment", entry.desc());
  const int id = static_cast<int>(entry.desc().id());
  shmid_ds now{};
  if (::shmctl(id, IPC_STAT, &now) < 0) {
    throw Error("cannot restore", what, errno, "it was shared with processes outside of the tree, and is gone");
  }
  if (!is_same(now.shm_perm, entry.desc()) || now.shm_segsz != entry.size()) {
    throw Error("cannot restore", what, 0,
                "another segment has its id by now; a tree with an IPC namespace of its own does not depend on this");
  }
  if (entry.extension().used_outside()) {
    return;
  }
  if (!entry.in_pagemaps()) {
    throw Error("cannot restore", what, 0, "it is there, and its contents lie where they cannot be compared");
  }
  const auto fd = open_segment(id, entry, O_RDWR, what);
  if (has_saved_contents(context, fd.get(), entry, what)) {
    return;
  }
  if (now.shm_nattch > 0) {
    throw Error("cannot restore", what, 0,
                fmt::format("it has changed since the dump, and {} other attachments use it", now.shm_nattch));
  }
  check(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                    static_cast<off_t>(round_up(entry.size(), page_size_of(entry)))),
        "clear", what);
  memory::fill_object(context, fd.get(), entry.desc().id(), entry.size(), what);
}

void RestoredSegments::make(const RestoreContext& context, const images::ipc_shm_entry& entry, image::Reader& reader,
                            bool own) {
  const auto& desc = entry.desc();
  const auto what = name_object("System V segment", desc);
  const int id = make_object(
      "shm", desc, what,
      [&](key_t key, int flags) { return ::shmget(key, entry.size(), flags | static_cast<int>(entry.hugetlb_flag())); },
      [](int made) { ::shmctl(made, IPC_RMID, nullptr); });
  if (!own) {
    made_.push_back(id);
  }
  if ((desc.mode() & removed_bit) != 0) {
    removed_.push_back(id);
  }
  const auto fd = open_segment(id, entry, O_RDWR, what);
  if (entry.in_pagemaps()) {
    memory::fill_object(context, fd.get(), desc.id(), entry.size(), what);
  } else {
    read_inline(reader, fd.get(), entry, what);
  }
  shmid_ds segment{};
  check(::shmctl(id, IPC_STAT, &segment), "look at", what);
  if (set_owner(segment.shm_perm, desc)) {
    check(::shmctl(id, IPC_SET, &segment), "set the owner of", what);
  }
  if ((desc.mode() & locked_bit) != 0) {
    check(::shmctl(id, SHM_LOCK, nullptr), "lock", what);
  }
}

void RestoredSegments::remove_removed() const {
  for (const int id : removed_) {
    check(::shmctl(id, IPC_RMID, nullptr), "remove", fmt::format("System V segment {}", id));
  }
}

RestoredSegments::~RestoredSegments() {
  for (const int id : made_) {
    ::shmctl(id, IPC_RMID, nullptr);
  }
}

}  // namespace criu::namespaces
