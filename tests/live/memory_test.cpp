// SPDX-License-Identifier: GPL-2.0-only
// Address spaces: what is mapped, what is in it, and what was said about it.
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "harness/live.hpp"

using namespace live;

namespace {

constexpr std::size_t page = 4096;

char* map(std::size_t size, int protection, int flags, int fd = -1) {
  void* at = ::mmap(nullptr, size, protection, flags, fd, 0);
  REQUIRE(at != MAP_FAILED);
  return static_cast<char*>(at);
}

char* anonymous(std::size_t pages) { return map(pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS); }

// The VmFlags line of the mapping at an address, with a space at each end.
std::string flags_at(const void* at) {
  std::ostringstream start;
  start << std::hex << reinterpret_cast<std::uintptr_t>(at) << "-";
  std::ifstream file("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(file, line);) {
    if (line.find('-') != std::string::npos && line.find(':') > line.find('-')) {
      here = line.starts_with(start.str());
    }
    if (here && line.starts_with("VmFlags:")) {
      return line.substr(8) + " ";
    }
  }
  return {};
}

// Whether a page has memory behind it (present or swapped).
bool is_backed(const char* at) {
  std::uint64_t entry = 0;
  const int fd = ::open("/proc/self/pagemap", O_RDONLY);
  const auto offset = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(at) / page * sizeof entry);
  const bool got = ::pread(fd, &entry, sizeof entry, offset) == sizeof entry;
  ::close(fd);
  return got && (entry >> 62) != 0;
}

// The number of the page frame, which says whether two mappings share memory.
std::uint64_t frame_of(const char* at, pid_t pid) {
  std::uint64_t entry = 0;
  const int fd = ::open(("/proc/" + std::to_string(pid) + "/pagemap").c_str(), O_RDONLY);
  const auto offset = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(at) / page * sizeof entry);
  const bool got = ::pread(fd, &entry, sizeof entry, offset) == sizeof entry;
  ::close(fd);
  return got ? entry & ((1ULL << 55) - 1) : 0;
}

int make_file(const char* name, std::size_t pages) {
  const int fd = ::open(scratch(name).c_str(), O_RDWR | O_CREAT | O_TRUNC, 0644);
  const std::string text(pages * page, 'f');
  REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  return fd;
}

}  // namespace

LIVE_TEST("memory: private anonymous, with holes and protections") {
  char* at = anonymous(16);
  std::memset(at, 'a', 3 * page);
  std::memset(at + 10 * page, 'b', page);
  REQUIRE(::mprotect(at + page, page, PROT_READ) == 0);
  REQUIRE(::mprotect(at + 2 * page, page, PROT_NONE) == 0);
  REQUIRE(::munmap(at + 14 * page, page) == 0);
  checkpoint_here();
  CHECK_EQ(at[0], 'a');
  CHECK_EQ(at[page + 17], 'a');
  CHECK_EQ(at[11 * page - 1], 'b');
  CHECK_EQ(at[5 * page], '\0');
  CHECK_EQ(::mprotect(at + 2 * page, page, PROT_READ), 0);
  CHECK_EQ(at[2 * page], 'a');
}

LIVE_TEST("memory: untouched memory stays untouched") {
  char* at = anonymous(1024);
  REQUIRE(::madvise(at, 1024 * page, MADV_NOHUGEPAGE) == 0);  // or the kernel itself may back all around page 512
  at[512 * page] = 'x';
  checkpoint_here();
  CHECK(!is_backed(at + 100 * page));
  CHECK(is_backed(at + 512 * page));
  CHECK_EQ(at[512 * page], 'x');
}

LIVE_TEST("memory: a private file mapping with pages written") {
  const int fd = make_file("private", 4);
  char* at = map(4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  REQUIRE(::close(fd) == 0);
  at[page] = 'w';
  checkpoint_here();
  CHECK_EQ(at[0], 'f');
  CHECK_EQ(at[page], 'w');
  CHECK_EQ(at[page + 1], 'f');
  CHECK_EQ(at[3 * page], 'f');
  CHECK(read_text(scratch("private")).find('w') == std::string::npos);
}

LIVE_TEST("memory: a shared file mapping") {
  const int fd = make_file("shared", 2);
  char* at = map(2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  at[5] = 's';
  checkpoint_here();
  CHECK_EQ(at[5], 's');
  at[6] = 't';
  char both[2];
  CHECK_EQ(::pread(fd, both, 2, 5), 2);
  CHECK_EQ(std::string(both, 2), "st");
}

LIVE_TEST("memory: a mapping of a deleted file") {
  const int fd = make_file("mapped-ghost", 2);
  char* at = map(2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  REQUIRE(::close(fd) == 0);
  REQUIRE(::unlink(scratch("mapped-ghost").c_str()) == 0);
  at[0] = 'g';
  checkpoint_here();
  CHECK_EQ(at[0], 'g');
  CHECK_EQ(at[page], 'f');
}

LIVE_TEST("memory: shared anonymous between tasks") {
  char* at = map(4 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  std::memcpy(at + page, "both", 5);
  Child child([at] {
    checkpoint_here();
    CHECK_EQ(std::string(at + page), "both");
    at[0] = 'c';
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(at[0], 'c');
  CHECK_EQ(std::string(at + page), "both");
}

LIVE_TEST("memory: copy-on-write pages stay shared between parent and child",
          {.needs_true_root = "see the page frames of its memory"}) {
  char* at = anonymous(64);
  std::memset(at, 'p', 64 * page);
  Child child([at] {
    at[0] = 'c';
    checkpoint_here();
    CHECK_EQ(at[0], 'c');
    CHECK_EQ(at[page], 'p');
  });
  REQUIRE(frame_of(at + page, ::getpid()) == frame_of(at + page, child.pid()));
  checkpoint_here();
  CHECK_EQ(at[0], 'p');
  CHECK(frame_of(at, ::getpid()) != frame_of(at, child.pid()));
  for (std::size_t i = 1; i < 64; ++i) {
    CHECK_EQ(frame_of(at + i * page, ::getpid()), frame_of(at + i * page, child.pid()));
  }
  CHECK_EQ(child.finish(), 0);
}

// To look at memory the fast way would give parent and child copies of their own.
LIVE_TEST("memory: copy-on-write pages stay shared in a tree that is dumped and goes on", {.leave_running = true}) {
  char* at = anonymous(64);
  std::memset(at, 'p', 64 * page);
  Child child([at] {
    at[0] = 'c';
    checkpoint_here();
  });
  checkpoint_here();
  for (std::size_t i = 1; i < 64; ++i) {
    CHECK_EQ(frame_of(at + i * page, ::getpid()), frame_of(at + i * page, child.pid()));
  }
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("memory: a child has pages where its parent has none and may not write") {
  constexpr std::size_t pages = 64;
  char* at = anonymous(pages);
  REQUIRE(::mprotect(at, pages * page, PROT_READ) == 0);
  Child child([at] {
    REQUIRE(::mprotect(at, pages * page, PROT_READ | PROT_WRITE) == 0);
    at[3 * page] = 'c';
    REQUIRE(::mprotect(at, pages * page, PROT_READ) == 0);
    checkpoint_here();
    CHECK_EQ(at[3 * page], 'c');
    CHECK_EQ(at[4 * page], '\0');
  });
  checkpoint_here();
  CHECK_EQ(at[3 * page], '\0');
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("memory: an area that grows down") {
  char* below = anonymous(256);
  REQUIRE(::munmap(below, 256 * page) == 0);
  void* at = ::mmap(below + 200 * page, 4 * page, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0);
  REQUIRE(at != MAP_FAILED);
  auto* area = static_cast<char*>(at);
  area[-1] = 'g';
  checkpoint_here();
  CHECK_EQ(area[-1], 'g');
  area[-2 * static_cast<std::ptrdiff_t>(page)] = 'h';  // it still grows
  CHECK_EQ(area[-2 * static_cast<std::ptrdiff_t>(page)], 'h');
}

LIVE_TEST("memory: the stack, grown") {
  volatile char deep[1 << 19];
  for (std::size_t i = 0; i < sizeof deep; i += page) {
    deep[i] = static_cast<char>(i / page);
  }
  checkpoint_here();
  for (std::size_t i = 0; i < sizeof deep; i += page) {
    CHECK_EQ(static_cast<int>(deep[i]), static_cast<int>(static_cast<char>(i / page)));
  }
}

LIVE_TEST("memory: the heap's break") {
  char* before = static_cast<char*>(::sbrk(1 << 20));
  REQUIRE(before != reinterpret_cast<char*>(-1));
  before[1000] = 'h';
  checkpoint_here();
  CHECK(::sbrk(0) == before + (1 << 20));
  CHECK_EQ(before[1000], 'h');
  CHECK(::sbrk(static_cast<std::intptr_t>(page)) == before + (1 << 20));
  before[(1 << 20) + 5] = 'n';
}

LIVE_TEST("memory: locked, on fault and in future") {
  char* locked = anonymous(4);
  char* plain = anonymous(4);
  REQUIRE(::mprotect(plain, page, PROT_READ) == 0);
  REQUIRE(::mlock(locked, 4 * page) == 0);
  REQUIRE(::mlockall(MCL_FUTURE) == 0);
  checkpoint_here();
  CHECK(flags_at(locked).find(" lo ") != std::string::npos);
  CHECK(flags_at(plain).find(" lo ") == std::string::npos);
}

LIVE_TEST("memory: advice") {
  struct {
    int advice;
    const char* flag;
    char* at;
  } areas[] = {{MADV_DONTFORK, " dc ", nullptr}, {MADV_DONTDUMP, " dd ", nullptr},   {MADV_WIPEONFORK, " wf ", nullptr},
               {MADV_HUGEPAGE, " hg ", nullptr}, {MADV_NOHUGEPAGE, " nh ", nullptr}, {MADV_SEQUENTIAL, " sr ", nullptr},
               {MADV_RANDOM, " rr ", nullptr}};
  for (auto& area : areas) {
    // Each between two that can't be entered, so that it is a mapping of its own.
    area.at = map(6 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS) + page;
    REQUIRE(::mprotect(area.at, 4 * page, PROT_READ | PROT_WRITE) == 0);
    area.at[0] = 'm';
    if (::madvise(area.at, 4 * page, area.advice) != 0) {
      area.flag = "";  // this kernel doesn't have it
    }
  }
  checkpoint_here();
  for (const auto& area : areas) {
    CHECK(flags_at(area.at).find(area.flag) != std::string::npos);
    CHECK_EQ(area.at[0], 'm');
  }
}

LIVE_TEST("memory: mergeable") {
  char* at = map(6 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS) + page;
  REQUIRE(::mprotect(at, 4 * page, PROT_READ | PROT_WRITE) == 0);
  if (::madvise(at, 4 * page, MADV_MERGEABLE) != 0) {
    skip("this kernel has no KSM");
  }
  checkpoint_here();
  CHECK(flags_at(at).find(" mg ") != std::string::npos);
}

LIVE_TEST("memory: more than the machine has, taken piece by piece") {
  int policy = 0;
  std::ifstream("/proc/sys/vm/overcommit_memory") >> policy;
  if (policy == 2) {
    skip("this machine promises no more memory than it has");
  }
  constexpr std::size_t gib = 1 << 30;
  const auto pieces = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) / (gib / page) + 4;
  // A place that is free, to grow into.
  auto* const begin =
      static_cast<char*>(::mmap(nullptr, pieces * gib, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  REQUIRE(begin != MAP_FAILED);
  for (std::size_t i = 0; i < pieces; ++i) {
    REQUIRE(::mmap(begin + i * gib, gib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
            begin + i * gib);
    begin[i * gib] = static_cast<char>(i + 1);
  }
  checkpoint_here();
  for (std::size_t i = 0; i < pieces; ++i) {
    CHECK_EQ(begin[i * gib], static_cast<char>(i + 1));
    CHECK_EQ(begin[i * gib + page], 0);
  }
}

// Where programs lie that are started without address space randomisation: the one that restores is.
LIVE_TEST("memory: areas where the restoring program lies",
          {.tamper = [](const std::string&) { REQUIRE(::personality(ADDR_NO_RANDOMIZE) >= 0); }}) {
  constexpr std::size_t size = 4 << 20;
  constexpr int count = 3;
  constexpr std::uintptr_t places[count] = {0x555555554000, 0x7ffff7c00000, 0x7fffffbff000};
  char* areas[count];
  for (int i = 0; i < count; ++i) {
    void* area = ::mmap(reinterpret_cast<void*>(places[i]), size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    REQUIRE(area != MAP_FAILED);
    areas[i] = static_cast<char*>(area);
    std::memset(areas[i], 'a' + i, size);
  }
  Child child([&] {
    areas[0][page] = '!';
    checkpoint_here();
    for (int i = 0; i < count; ++i) {
      CHECK_EQ(areas[i][size - 1], 'a' + i);
    }
    CHECK_EQ(areas[0][page], '!');
  });
  checkpoint_here();
  for (int i = 0; i < count; ++i) {
    CHECK_EQ(areas[i][0], 'a' + i);
    CHECK_EQ(areas[i][page], 'a' + i);
    CHECK_EQ(areas[i][size - 1], 'a' + i);
  }
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("memory: five thousand areas") {
  constexpr std::size_t count = 5000;
  char* at = anonymous(2 * count);
  for (std::size_t i = 0; i < count; ++i) {
    REQUIRE(::mprotect(at + 2 * i * page, page, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
    at[2 * i * page] = static_cast<char>(i);
  }
  checkpoint_here();
  for (std::size_t i = 0; i < count; ++i) {
    CHECK_EQ(static_cast<int>(at[2 * i * page]), static_cast<int>(static_cast<char>(i)));
  }
}

LIVE_TEST("memory: the vDSO is where it was, and tells the time") {
  const auto vdso = ::getauxval(AT_SYSINFO_EHDR);
  REQUIRE(vdso != 0);
  timespec before{};
  REQUIRE(::clock_gettime(CLOCK_MONOTONIC, &before) == 0);
  checkpoint_here();
  CHECK_EQ(std::memcmp(reinterpret_cast<const void*>(vdso), "\177ELF", 4), 0);
  timespec after{};
  CHECK_EQ(::clock_gettime(CLOCK_MONOTONIC, &after), 0);
  CHECK(after.tv_sec >= before.tv_sec && after.tv_sec < before.tv_sec + 600);
}

LIVE_TEST("memory: huge pages") {
  constexpr std::size_t huge = 2 << 20;
  void* at = ::mmap(nullptr, huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (at == MAP_FAILED) {
    skip("no huge pages are reserved here (vm.nr_hugepages)");
  }
  std::memset(at, 'h', huge);
  checkpoint_here();
  CHECK_EQ(static_cast<char*>(at)[huge - 1], 'h');
  CHECK(flags_at(at).find(" ht ") != std::string::npos);
}

LIVE_TEST("memory: guard regions") {
  constexpr int madv_guard_install = 102;  // Linux 6.13
  char* at = anonymous(8);
  std::memset(at, 'g', 8 * page);
  if (::madvise(at + 2 * page, page, madv_guard_install) != 0) {
    skip("this kernel has no guard regions");
  }
  checkpoint_here();
  CHECK_EQ(at[page], 'g');
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  CHECK_EQ(::write(ends[1], at + 2 * page, 1), -1);  // the kernel's own access faults, too
  CHECK_EQ(::write(ends[1], at + 3 * page, 1), 1);
}
