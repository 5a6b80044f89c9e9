// SPDX-License-Identifier: GPL-2.0-only
// Areas of the less common kinds: locked ones to come, guards, huge pages, ends of files, keys, and what is refused.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csetjmp>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "harness/live.hpp"

using namespace live;

namespace {

constexpr std::size_t page = 4096;

char* map(std::size_t pages, int protection, int flags, int fd = -1, off_t offset = 0) {
  void* at = ::mmap(nullptr, pages * page, protection, flags, fd, offset);
  REQUIRE(at != MAP_FAILED);
  return static_cast<char*>(at);
}

char* anonymous(std::size_t pages) { return map(pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS); }

// An area between two that can't be entered, so that it is one of its own.
char* lone(std::size_t pages) {
  char* at = map(pages + 2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS) + page;
  REQUIRE(::mprotect(at, pages * page, PROT_READ | PROT_WRITE) == 0);
  return at;
}

// A line of smaps of the area at an address, with a space at each end.
std::string smaps_at(const void* at, const std::string& name) {
  std::ostringstream start;
  start << std::hex << reinterpret_cast<std::uintptr_t>(at) << "-";
  std::ifstream file("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(file, line);) {
    if (line.find('-') != std::string::npos && line.find(':') > line.find('-')) {
      here = line.starts_with(start.str());
    }
    if (here && line.starts_with(name + ":")) {
      return line.substr(name.size() + 1) + " ";
    }
  }
  return {};
}

bool has_flag(const void* at, const std::string& flag) {
  return smaps_at(at, "VmFlags").find(" " + flag + " ") != std::string::npos;
}

bool is_backed(const char* at) {
  std::uint64_t entry = 0;
  const int fd = ::open("/proc/self/pagemap", O_RDONLY);
  const auto offset = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(at) / page * sizeof entry);
  const bool got = ::pread(fd, &entry, sizeof entry, offset) == sizeof entry;
  ::close(fd);
  return got && (entry >> 62) != 0;
}

sigjmp_buf out_of_fault;
void leave_fault(int signal) { ::siglongjmp(out_of_fault, signal); }

// The signal that a read of this byte ends with; 0: none.
int fault_at(const char* at) {
  ::signal(SIGSEGV, leave_fault);
  ::signal(SIGBUS, leave_fault);
  const int signal = ::sigsetjmp(out_of_fault, 1);
  if (signal == 0) {
    static_cast<void>(*static_cast<const volatile char*>(at));
  }
  ::signal(SIGSEGV, SIG_DFL);
  ::signal(SIGBUS, SIG_DFL);
  return signal;
}

int make_file(const char* name, std::size_t size, char filler = 'f') {
  const int fd = ::open(scratch(name).c_str(), O_RDWR | O_CREAT | O_TRUNC, 0644);
  const std::string text(size, filler);
  REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  return fd;
}

}  // namespace

LIVE_TEST("areas: what is mapped later is locked, too") {
  REQUIRE(::mlockall(MCL_FUTURE) == 0);
  checkpoint_here();
  char* later = lone(2);
  CHECK(has_flag(later, "lo"));
  CHECK(is_backed(later + page));
}

LIVE_TEST("areas: what is mapped later is locked when it is touched") {
  REQUIRE(::mlockall(MCL_FUTURE | MCL_ONFAULT) == 0);
  checkpoint_here();
  char* later = lone(2);
  CHECK(has_flag(later, "lo"));
  CHECK(!is_backed(later + page));
}

LIVE_TEST("areas: what is mapped later is not locked") {
  char* locked = lone(2);
  REQUIRE(::mlock(locked, 2 * page) == 0);
  checkpoint_here();
  CHECK(has_flag(locked, "lo"));
  CHECK(!has_flag(lone(2), "lo"));
}

LIVE_TEST("areas: locked page by page as they are touched") {
  char* at = lone(64);
  REQUIRE(::mlock2(at, 64 * page, MLOCK_ONFAULT) == 0);
  at[0] = 'l';
  checkpoint_here();
  CHECK(has_flag(at, "lo"));
  CHECK_EQ(at[0], 'l');
  CHECK(!is_backed(at + 32 * page));
}

LIVE_TEST("areas: all is locked, what cannot be entered included") {
  REQUIRE(::mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
  char* guarded = lone(4);
  char* closed = lone(2);
  closed[page] = 'c';
  REQUIRE(::mprotect(closed, 2 * page, PROT_NONE) == 0);
  const int fd = make_file("short", page);
  char* file = map(3, PROT_READ, MAP_PRIVATE, fd);
  checkpoint_here();
  CHECK(has_flag(guarded, "lo"));
  CHECK(has_flag(file, "lo"));
  CHECK_EQ(::mprotect(closed, 2 * page, PROT_READ), 0);
  CHECK_EQ(closed[page], 'c');
}

LIVE_TEST("areas: /dev/zero, shared and private") {
  const int zero = ::open("/dev/zero", O_RDWR);
  char* shared = map(2, PROT_READ | PROT_WRITE, MAP_SHARED, zero);
  char* own = map(2, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero);
  REQUIRE(::close(zero) == 0);
  shared[page] = 's';
  own[page] = 'p';
  Child child([=] {
    checkpoint_here();
    shared[0] = 'c';
    own[0] = 'c';
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(shared[0], 'c');
  CHECK_EQ(shared[page], 's');
  CHECK_EQ(own[0], '\0');
  CHECK_EQ(own[page], 'p');
}

LIVE_TEST("areas: parts of one shared object, in different tasks, orders and protections") {
  char* at = map(8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  std::memset(at, 'o', 8 * page);
  Child child([at] {
    REQUIRE(::munmap(at, 3 * page) == 0);
    REQUIRE(::mprotect(at + 3 * page, page, PROT_READ) == 0);
    checkpoint_here();
    CHECK_EQ(at[3 * page], '3');
    at[4 * page] = 'c';
  });
  REQUIRE(::munmap(at + 5 * page, 3 * page) == 0);  // the object keeps its last pages, which nobody here sees
  char* again = map(1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
  // The second page of the object once more.
  REQUIRE(::mremap(at + page, 0, page, MREMAP_MAYMOVE | MREMAP_FIXED, again) == again);
  checkpoint_here();
  at[3 * page] = '3';
  again[0] = 'a';
  CHECK_EQ(at[page], 'a');
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(at[4 * page], 'c');
}

LIVE_TEST("areas: not for children, or empty in them") {
  char* kept_back = lone(2);
  char* wiped = lone(2);
  kept_back[0] = wiped[0] = 'x';
  REQUIRE(::madvise(kept_back, 2 * page, MADV_DONTFORK) == 0);
  REQUIRE(::madvise(wiped, 2 * page, MADV_WIPEONFORK) == 0);
  Child before([=] {
    checkpoint_here();
    CHECK_EQ(wiped[0], '\0');
    CHECK_EQ(fault_at(kept_back), SIGSEGV);
  });
  checkpoint_here();
  CHECK_EQ(before.finish(), 0);
  CHECK_EQ(kept_back[0], 'x');
  CHECK_EQ(wiped[0], 'x');
  Child after([=] {
    CHECK_EQ(wiped[0], '\0');
    CHECK_EQ(fault_at(kept_back), SIGSEGV);
    checkpoint_here();
  });
  CHECK_EQ(after.finish(), 0);
}

LIVE_TEST("areas: an area that grows down stops at what lies below it") {
  char* below = anonymous(512);
  REQUIRE(::munmap(below, 512 * page) == 0);
  char* neighbour = below + 100 * page;
  char* grows = below + 400 * page;
  REQUIRE(::mmap(neighbour, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == neighbour);
  REQUIRE(::mmap(grows, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1,
                 0) == grows);
  grows[0] = 'g';
  neighbour[0] = 'n';
  checkpoint_here();
  // The kernel keeps 256 pages free between the two.
  CHECK_EQ(fault_at(grows - page), 0);
  CHECK_EQ(fault_at(neighbour + 20 * page), SIGSEGV);
  CHECK_EQ(grows[0], 'g');
  CHECK_EQ(neighbour[0], 'n');
}

LIVE_TEST("areas: guards at the edges, in the middle, in areas of files and of what is shared") {
  constexpr int madv_guard_install = 102;  // Linux 6.13, for files 6.15
  char* at = lone(16);
  std::memset(at, 'g', 16 * page);
  if (::madvise(at, page, madv_guard_install) != 0) {
    skip("this kernel has no guard regions");
  }
  REQUIRE(::madvise(at + 5 * page, 3 * page, madv_guard_install) == 0);
  REQUIRE(::madvise(at + 15 * page, page, madv_guard_install) == 0);
  const int fd = make_file("guarded", 4 * page);
  char* file = map(4, PROT_READ, MAP_SHARED, fd);
  const bool of_file = ::madvise(file + page, page, madv_guard_install) == 0;
  char* shared = map(4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  std::memset(shared, 's', 4 * page);
  const bool of_shared = ::madvise(shared + 2 * page, page, madv_guard_install) == 0;
  checkpoint_here();
  for (std::size_t i = 0; i < 16; ++i) {
    CHECK_EQ(fault_at(at + i * page), i == 0 || (i >= 5 && i < 8) || i == 15 ? SIGSEGV : 0);
  }
  CHECK_EQ(at[page], 'g');
  CHECK_EQ(fault_at(file), 0);
  CHECK_EQ(fault_at(file + page), of_file ? SIGSEGV : 0);
  CHECK_EQ(shared[page], 's');
  CHECK_EQ(fault_at(shared + 2 * page), of_shared ? SIGSEGV : 0);
}

LIVE_TEST("areas: beyond the end of a file") {
  const int fd = make_file("short", 3 * page + 100);
  char* at = map(8, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, page);
  at[2 * page + 200] = 'w';  // in the last page of the file, behind its end
  checkpoint_here();
  CHECK_EQ(at[0], 'f');
  CHECK_EQ(at[2 * page + 99], 'f');
  CHECK_EQ(at[2 * page + 200], 'w');
  CHECK_EQ(fault_at(at + 3 * page), SIGBUS);
}

LIVE_TEST("areas: a shared mapping of a deleted file, in two tasks") {
  const int fd = make_file("gone", 2 * page);
  char* at = map(2, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  REQUIRE(::close(fd) == 0 && ::unlink(scratch("gone").c_str()) == 0);
  at[0] = 'd';
  Child child([at] {
    checkpoint_here();
    CHECK_EQ(at[0], 'd');
    at[page] = 'c';
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(at[page], 'c');
}

LIVE_TEST("areas: a shared mapping that cannot be written") {
  ::close(make_file("read-only", page));
  const int fd = ::open(scratch("read-only").c_str(), O_RDONLY);
  char* at = map(1, PROT_READ, MAP_SHARED, fd);
  checkpoint_here();
  CHECK_EQ(at[0], 'f');
  CHECK_EQ(::mprotect(at, page, PROT_READ | PROT_WRITE), -1);
}

LIVE_TEST("areas: huge pages, shared") {
  constexpr std::size_t huge = 2 << 20;
  void* const area = ::mmap(nullptr, huge, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (area == MAP_FAILED) {
    skip("no huge pages are reserved here (vm.nr_hugepages)");
  }
  auto* at = static_cast<char*>(area);
  std::memset(at, 'h', huge);
  Child child([at] {
    checkpoint_here();
    CHECK_EQ(at[huge - 1], 'h');
    at[5 * page] = 'c';
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(at[5 * page], 'c');
  CHECK(has_flag(at, "ht"));
}

LIVE_TEST("areas: protection keys, a gap between them, and memory that is executable alone") {
  const int gap = ::pkey_alloc(0, 0);
  if (gap < 0) {
    skip("this CPU has no protection keys");
  }
  const int key = ::pkey_alloc(0, 0);
  char* at = lone(1);
  at[0] = 'k';
  REQUIRE(::pkey_mprotect(at, page, PROT_READ | PROT_WRITE, key) == 0);
  char* code = lone(1);
  code[0] = '\xc3';                                 // ret
  REQUIRE(::mprotect(code, page, PROT_EXEC) == 0);  // for which the kernel takes the lowest key that is free
  REQUIRE(key > gap && ::pkey_free(gap) == 0);
  REQUIRE(::pkey_set(key, PKEY_DISABLE_WRITE) == 0);
  checkpoint_here();
  CHECK_EQ(::pkey_get(key), PKEY_DISABLE_WRITE);
  CHECK_EQ(at[0], 'k');
  CHECK_EQ(::pkey_set(key, PKEY_DISABLE_ACCESS), 0);
  CHECK_EQ(fault_at(at), SIGSEGV);
  CHECK_EQ(fault_at(code), SIGSEGV);
  reinterpret_cast<void (*)()>(code)();
  CHECK_EQ(::pkey_set(key, 0), 0);
  CHECK_EQ(at[0], 'k');
  CHECK_EQ(::pkey_alloc(0, 0), gap);  // the one that was free is, and the other is not
}

LIVE_TEST("areas: memory that a userfaultfd manages is refused by name", {.dump_fails = "userfaultfd"}) {
  const int fd = static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
  if (fd < 0) {
    skip("userfaultfd is not allowed here");
  }
  uffdio_api api{};
  api.api = UFFD_API;
  REQUIRE(::ioctl(fd, UFFDIO_API, &api) == 0);
  char* at = lone(2);
  at[0] = 'u';
  uffdio_register area{};
  area.range = {reinterpret_cast<std::uintptr_t>(at), 2 * page};
  area.mode = UFFDIO_REGISTER_MODE_MISSING;
  REQUIRE(::ioctl(fd, UFFDIO_REGISTER, &area) == 0);
  checkpoint_here();
  CHECK_EQ(at[0], 'u');
}
