// SPDX-License-Identifier: GPL-2.0-only
#include "kernel/procfs.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "kernel/pagemap.hpp"

namespace procfs = criu::procfs;

TEST_CASE("stat: the name may hold blanks and parentheses") {
  std::string text =
      "42 (a) b (c) S 1 40 39 34816 -1 4194560 1 2 3 4 5 6 7 8 20 -5 3 0 12345 100 200 18446744073709551615";
  for (int field = 26; field <= 52; ++field) {
    text += " " + std::to_string(field * 100);
  }
  const auto stat = procfs::parse_stat(text);
  CHECK(stat.comm == "a) b (c");
  CHECK(stat.state == 'S');
  CHECK(stat.ppid == 1);
  CHECK(stat.pgrp == 40);
  CHECK(stat.session == 39);
  CHECK(stat.terminal == 34816);
  CHECK(stat.foreground == -1);
  CHECK(stat.nice == -5);
  CHECK(stat.start_time == 12345);
  CHECK(stat.start_code == 2600);
  CHECK(stat.start_brk == 4700);
  CHECK(stat.exit_code == 5200);
}

TEST_CASE("stat: cut off or without a name is an error") {
  CHECK_THROWS_AS(procfs::parse_stat(""), base::Error);
  CHECK_THROWS_AS(procfs::parse_stat("42 (name) S 1 2"), base::Error);
  CHECK_THROWS_AS(procfs::parse_stat("42 )name( S 1 2 3"), base::Error);
}

TEST_CASE("status of this very process") {
  const auto status = procfs::parse_status(procfs::Task(::getpid()).read("status"));
  CHECK(status.uid[0] == ::getuid());
  CHECK(status.gid[1] == ::getegid());
  CHECK(status.ns_pid.front() == ::getpid());
  CHECK(status.has_umask);
  CHECK(status.tracer == 0);
}

TEST_CASE("smaps: areas with names of any kind, and their flags") {
  const auto areas = procfs::parse_smaps(
      "7f0000000000-7f0000002000 r-xp 00001000 fe:01 77                 /tmp/a file (deleted)\n"
      "Size:                  8 kB\n"
      "KernelPageSize:        4 kB\n"
      "VmFlags: rd ex mr mw me gd lo\n"
      "7f0000200000-7f0000400000 rw-s 00000000 00:0f 1234 /anon_hugepage (deleted)\n"
      "KernelPageSize:     2048 kB\n"
      "ProtectionKey:         3\n"
      "VmFlags: rd wr sh mr mw me ms de ht\n"
      "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n"
      "VmFlags: ex\n");
  REQUIRE(areas.size() == 3);
  CHECK(areas[0].start == 0x7f0000000000);
  CHECK(areas[0].end == 0x7f0000002000);
  CHECK(areas[0].offset == 0x1000);
  CHECK(areas[0].name == "/tmp/a file (deleted)");
  CHECK(areas[0].dev_major == 0xfe);
  CHECK(areas[0].inode == 77);
  CHECK(areas[0].executable);
  CHECK_FALSE(areas[0].shared);
  CHECK(areas[0].has("gd"));
  CHECK(areas[0].has("lo"));
  CHECK_FALSE(areas[0].has("ht"));
  CHECK(areas[1].shared);
  CHECK(areas[1].page_size == 2 << 20);
  CHECK(areas[1].protection_key == 3);
  CHECK(areas[0].protection_key == 0);
  CHECK(areas[1].has("ht"));
  CHECK(areas[2].name == "[vsyscall]");
  CHECK_THROWS_AS(procfs::parse_smaps("7f00-zz r-xp\n"), base::Error);
}

TEST_CASE("timers: all kinds of notification") {
  const auto timers = procfs::parse_timers(
      "ID: 5\nsignal: 14/00007ffe12345678\nnotify: signal/pid.77\nClockID: 0\n"
      "ID: 2\nsignal: 35/0000000000000000\nnotify: signal/tid.78\nClockID: 1\n"
      "ID: 0\nsignal: 0/0000000000000001\nnotify: none/pid.77\nClockID: -6\n");
  REQUIRE(timers.size() == 3);
  CHECK(timers[0].id == 5);
  CHECK(timers[0].signo == 14);
  CHECK(timers[0].value == 0x7ffe12345678);
  CHECK(timers[0].notify == SIGEV_SIGNAL);
  CHECK(timers[1].notify == SIGEV_THREAD_ID);
  CHECK(timers[1].tid == 78);
  CHECK(timers[2].notify == SIGEV_NONE);
  CHECK(timers[2].clock == -6);
}

TEST_CASE("limits agree with what the kernel tells this process itself") {
  const auto limits = procfs::parse_limits(procfs::Task(::getpid()).read("limits"));
  REQUIRE(limits.size() == RLIM_NLIMITS);
  for (int resource = 0; resource < static_cast<int>(RLIM_NLIMITS); ++resource) {
    rlimit own{};
    REQUIRE(::getrlimit(static_cast<__rlimit_resource>(resource), &own) == 0);
    INFO("resource " << resource);
    CHECK(limits[static_cast<std::size_t>(resource)].soft == own.rlim_cur);
    CHECK(limits[static_cast<std::size_t>(resource)].hard == own.rlim_max);
  }
}

TEST_CASE("the page map shows touched pages, not untouched ones, however it is read") {
  using criu::PageScanner;
  constexpr std::size_t page = 4096, pages = 16;
  auto* at =
      static_cast<char*>(::mmap(nullptr, page * pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(at != MAP_FAILED);
  ::madvise(at, page * pages, MADV_NOHUGEPAGE);
  at[3 * page] = 1;
  at[4 * page] = 1;
  at[9 * page] = 1;
  volatile char zero = at[12 * page];  // maps the zero page, which the entries do not tell from others
  CHECK(zero == 0);
  const auto start = reinterpret_cast<std::uint64_t>(at);
  const auto method = GENERATE(PageScanner::Method::best, PageScanner::Method::entries);
  const auto regions = PageScanner(procfs::Task(::getpid()), method)
                           .scan({{start, start + 8 * page}, {start + 9 * page, start + pages * page}});
  std::vector<std::uint64_t> found;
  for (const auto& region : regions) {
    CHECK_FALSE(region.file);
    for (auto here = region.start; here < region.end; here += page) {
      if (here != start + 12 * page) {
        found.push_back((here - start) / page);
      }
    }
  }
  CHECK(found == std::vector<std::uint64_t>{3, 4, 9});
  ::munmap(at, page * pages);
}
