// SPDX-License-Identifier: LGPL-2.1-only
#include <dirent.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <vector>

#include "base/kernel.hpp"
#include "kernel/probes.hpp"
#include "log.hpp"

#ifdef __x86_64__
#include <asm/prctl.h>
#endif

namespace criu::kernel::probe {

namespace {

const std::size_t page_size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));

base::Mapping anonymous(std::size_t size) {
  return {::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), size};
}

struct Area {
  unsigned long start, end;
  std::string line;
};

std::vector<Area> own_areas() {
  std::vector<Area> areas;
  const auto text = file_text("/proc/self/maps");
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    Area area{0, 0, text.substr(at, end - at)};
    if (std::sscanf(area.line.c_str(), "%lx-%lx", &area.start, &area.end) == 2) {
      areas.push_back(std::move(area));
    }
    at = end + 1;
  }
  return areas;
}

// Moves an area to where nothing else is. Null on failure.
void* move_away(const Area& area) {
  const auto size = area.end - area.start;
  void* place = ::mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (place == MAP_FAILED) {
    return nullptr;
  }
  void* moved = ::mremap(reinterpret_cast<void*>(area.start), size, size, MREMAP_FIXED | MREMAP_MAYMOVE, place);
  return moved == MAP_FAILED ? nullptr : moved;
}

base::Fd open_uffd() {
  base::Fd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (!fd) {
    // Without CAP_SYS_PTRACE only the kind that does not stop the kernel's own accesses.
    fd.reset(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | base::kernel::uffd_user_mode_only)));
  }
  return fd;
}

bool uffd_with(std::uint64_t features) {
  const auto fd = open_uffd();
  if (!fd) {
    return lacks("userfaultfd");
  }
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = features;
  return ::ioctl(fd.get(), UFFDIO_API, &api) == 0 || lacks("UFFDIO_API");
}

}  // namespace

bool map_files() {
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir("/proc/self/map_files"), ::closedir);
  if (!dir) {
    return lacks("/proc/self/map_files");
  }
  char target[4096];
  while (const dirent* entry = ::readdir(dir.get())) {
    if (entry->d_name[0] != '.') {
      return ::readlinkat(::dirfd(dir.get()), entry->d_name, target, sizeof target) > 0 ||
             lacks("a link in /proc/self/map_files");
    }
  }
  return false;
}

bool vmsplice_gift() {
  int ends[2];
  const auto page = anonymous(page_size);
  if (!page || ::pipe2(ends, O_CLOEXEC) != 0) {
    return lacks("a pipe");
  }
  const base::Fd reader(ends[0]);
  const base::Fd writer(ends[1]);
  const iovec piece{page.data(), 1};
  return ::vmsplice(writer.get(), &piece, 1, SPLICE_F_GIFT | SPLICE_F_NONBLOCK) == 1 || lacks("vmsplice");
}

bool vdso_remap() {
  return in_child([] {
    for (const auto& area : own_areas()) {
      const auto& line = area.line;
      const bool of_kernel =
          line.find("[vdso]") != line.npos || line.find("[vvar") != line.npos || line.find("[sigpage]") != line.npos;
      if (of_kernel && move_away(area) == nullptr) {
        return lacks("mremap of the vdso");
      }
    }
    static volatile sig_atomic_t came;
    ::signal(SIGUSR1, [](int) { came = 1; });
    ::raise(SIGUSR1);
    return came == 1;
  });
}

bool mem_dirty_track() {
  return in_child([] {
    const auto page = anonymous(page_size);
    const base::Fd clear(::open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC));
    const base::Fd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
    if (!page || !clear || !pagemap) {
      return lacks("open clear_refs and pagemap");
    }
    *reinterpret_cast<volatile char*>(page.data()) = 1;
    if (::write(clear.get(), "4", 1) != 1) {
      return lacks("reset soft-dirty");
    }
    const auto soft_dirty = [&] {
      std::uint64_t entry = 0;
      const auto offset = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(page.data()) / page_size * sizeof entry);
      return ::pread(pagemap.get(), &entry, sizeof entry, offset) == sizeof entry &&
             (entry & std::uint64_t{1} << 55) != 0;
    };
    if (soft_dirty()) {
      return false;
    }
    *reinterpret_cast<volatile char*>(page.data()) = 2;
    return soft_dirty();
  });
}

bool aio_remap() {
  return in_child([] {
    aio_context_t context = 0;
    if (::syscall(SYS_io_setup, 16, &context) != 0) {
      return lacks("io_setup");
    }
    for (const auto& area : own_areas()) {
      if (area.start == context) {
        void* moved = move_away(area);
        // The kernel finds the context by the ring's address: it must have followed.
        return moved != nullptr && ::syscall(SYS_io_destroy, moved) == 0;
      }
    }
    return false;
  });
}

bool uffd() { return uffd_with(0); }

bool uffd_noncoop() {
  return uffd_with(UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_EVENT_UNMAP |
                   UFFD_FEATURE_EVENT_REMOVE);
}

bool can_map_vdso() {
#ifdef __x86_64__
  return in_child([] {
    // With one mapped already the kernel refuses a second: the interface is there.
    return ::syscall(SYS_arch_prctl, ARCH_MAP_VDSO_64, 0) > 0 || errno == EEXIST || lacks("ARCH_MAP_VDSO_64");
  });
#else
  return false;
#endif
}

bool memfd_hugetlb() {
  const base::Fd fd(::memfd_create("probe", MFD_CLOEXEC | MFD_HUGETLB));
  return fd || lacks("MFD_HUGETLB");
}

bool pagemap_scan() {
  const base::Fd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  base::kernel::PagemapScan scan;
  scan.return_mask = base::kernel::page_is_present;
  return ::ioctl(pagemap.get(), base::kernel::pagemap_scan, &scan) == 0 || lacks("PAGEMAP_SCAN");
}

bool pagemap_scan_guard_pages() {
  const base::Fd pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  const auto page = anonymous(page_size);
  if (!page || ::madvise(page.data(), page_size, base::kernel::madv_guard_install) != 0) {
    return lacks("MADV_GUARD_INSTALL");
  }
  base::kernel::PageRegion region{};
  base::kernel::PagemapScan scan;
  scan.start = reinterpret_cast<std::uintptr_t>(page.data());
  scan.end = scan.start + page_size;
  scan.vec = reinterpret_cast<std::uintptr_t>(&region);
  scan.vec_len = 1;
  scan.category_mask = scan.return_mask = base::kernel::page_is_guard;
  const int regions = ::ioctl(pagemap.get(), base::kernel::pagemap_scan, &scan);
  return regions < 0 ? lacks("PAGEMAP_SCAN for guard pages") : regions == 1;
}

bool overlayfs_maps() {
  return in_child([] {
    if (!private_tmp()) {
      return false;
    }
    for (const char* dir : {"/tmp/lower", "/tmp/upper", "/tmp/work", "/tmp/all"}) {
      ::mkdir(dir, 0700);
    }
    if (::mount("overlay", "/tmp/all", "overlay", 0, "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work") !=
        0) {
      // A kernel without that file system has no mappings of it to get wrong.
      return errno == ENODEV || lacks("mount an overlay");
    }
    const base::Fd fd(::open("/tmp/all/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    struct stat st {};
    if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(page_size)) != 0 || ::fstat(fd.get(), &st) != 0) {
      return lacks("a file on an overlay");
    }
    const base::Mapping mapping(::mmap(nullptr, page_size, PROT_READ, MAP_SHARED, fd.get(), 0), page_size);
    const auto expected = fmt::format(" {:02x}:{:02x} {} ", ::major(st.st_dev), ::minor(st.st_dev), st.st_ino);
    for (const auto& area : own_areas()) {
      if (area.start == reinterpret_cast<std::uintptr_t>(mapping.data())) {
        return area.line.find(expected) != area.line.npos;
      }
    }
    return false;
  });
}

}  // namespace criu::kernel::probe
