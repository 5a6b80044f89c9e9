// SPDX-License-Identifier: GPL-2.0-only
// Attributes of a process that only prctl and its kin tell.
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "harness/live.hpp"

using live::checkpoint_here;
using live::skip;

namespace {

constexpr int set_mdwe = 65, get_mdwe = 66;  // PR_SET_MDWE, PR_GET_MDWE: 6.3
constexpr int get_registrations = 1 << 9;    // MEMBARRIER_CMD_GET_REGISTRATIONS: 6.3

long membarrier(int command) { return ::syscall(SYS_membarrier, command, 0, 0); }

}  // namespace

LIVE_TEST("attributes: memory that is writable and executable stays denied") {
  if (::prctl(set_mdwe, 1, 0, 0, 0) < 0) {
    skip("this kernel has no PR_SET_MDWE");
  }
  checkpoint_here();
  CHECK_EQ(::prctl(get_mdwe, 0, 0, 0, 0), 1);
  CHECK(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
}

LIVE_TEST("attributes: membarrier registrations") {
  if (membarrier(get_registrations) < 0) {
    skip("this kernel does not tell the registrations");
  }
  REQUIRE(membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0);
  REQUIRE(membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE) == 0);
  const auto before = membarrier(get_registrations);
  checkpoint_here();
  CHECK_EQ(membarrier(get_registrations), before);
  CHECK_EQ(membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED), 0L);
}

LIVE_TEST("attributes: child subreaper") {
  REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
  checkpoint_here();
  int set = 0;
  CHECK_EQ(::prctl(PR_GET_CHILD_SUBREAPER, &set, 0, 0, 0), 0);
  CHECK_EQ(set, 1);
}

namespace {

// The words of /proc/self/stat behind the name, from "state" on: number 3 of proc(5).
std::vector<std::string> stat_words() {
  const auto text = live::read_text("/proc/self/stat");
  std::istringstream rest(text.substr(text.rfind(')') + 1));
  return {std::istream_iterator<std::string>(rest), std::istream_iterator<std::string>()};
}

}  // namespace

LIVE_TEST("attributes: arguments and environment that were moved") {
  constexpr std::size_t page = 4096;
  auto* const room =
      static_cast<char*>(::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(room != MAP_FAILED);
  std::strcpy(room, "renamed: at work");
  std::strcpy(room + 100, "PLACE=elsewhere");
  const auto words = stat_words();
  const auto word = [&](std::size_t number) { return std::stoull(words.at(number - 3)); };
  const auto at = [&](std::size_t offset) { return reinterpret_cast<std::uint64_t>(room) + offset; };
  prctl_mm_map map{};
  map.start_code = word(26), map.end_code = word(27), map.start_stack = word(28), map.start_data = word(45);
  map.end_data = word(46), map.start_brk = word(47), map.brk = reinterpret_cast<std::uint64_t>(::sbrk(0));
  map.arg_start = at(0), map.arg_end = at(17), map.env_start = at(100), map.env_end = at(116);
  map.exe_fd = ~0U;
  REQUIRE(::prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0) == 0);
  REQUIRE(live::read_text("/proc/self/cmdline").starts_with("renamed: at work"));
  checkpoint_here();
  CHECK(live::read_text("/proc/self/cmdline").starts_with("renamed: at work"));
  CHECK(live::read_text("/proc/self/environ").starts_with("PLACE=elsewhere"));
}

LIVE_TEST("attributes: a program whose file is gone", {.dump = {"--ghost-limit", "16M"}}) {
  const auto copy = live::scratch("program");
  std::filesystem::copy_file("/bin/sleep", copy);
  live::Child child([&] { ::execl(copy.c_str(), "sleep", "1000", nullptr); },
                    [](pid_t pid) { live::await_syscall(pid, SYS_clock_nanosleep); });
  std::filesystem::remove(copy);
  checkpoint_here();
  CHECK_EQ(std::filesystem::read_symlink("/proc/" + std::to_string(child.pid()) + "/exe").string(),
           copy + " (deleted)");
  CHECK_EQ(::kill(child.pid(), SIGTERM), 0);
  CHECK_EQ(child.join(), SIGTERM);
}

LIVE_TEST("attributes: the login uid") {
  const auto before = live::read_text("/proc/self/loginuid");
  std::ofstream("/proc/self/loginuid") << 4711;
  if (live::read_text("/proc/self/loginuid") != "4711") {
    live::skip("the login uid cannot be set here");
  }
  live::Child child([] {
    checkpoint_here();
    CHECK_EQ(live::read_text("/proc/self/loginuid"), "4711");
  });
  checkpoint_here();
  CHECK_EQ(live::read_text("/proc/self/loginuid"), "4711");
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("attributes: what goes into a core dump") {
  std::ofstream("/proc/self/coredump_filter") << "0x7f";
  REQUIRE(live::read_text("/proc/self/coredump_filter") == "0000007f\n");
  checkpoint_here();
  CHECK_EQ(live::read_text("/proc/self/coredump_filter"), "0000007f\n");
}

LIVE_TEST("attributes: a task that may not be looked at by its user") {
  REQUIRE(::setresuid(1000, 1000, 1000) == 0);
  REQUIRE(::prctl(PR_GET_DUMPABLE) != 1);
  checkpoint_here();
  CHECK(::prctl(PR_GET_DUMPABLE) != 1);
}
