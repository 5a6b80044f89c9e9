// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/areas.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "memory/pages.hpp"

namespace criu::memory {

namespace {

// Below this kernels may refuse mappings (vm.mmap_min_addr), and small numbers are easily mistaken for pointers.
constexpr std::uint64_t lowest = 0x100000;

// Whether this kernel's smaps tell it; Debian 12's do not.
bool kernel_shows_lock_on_fault() {
  static const bool shows = [] {
    const base::Mapping page(::mmap(nullptr, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), page_size);
    if (::mlock2(page.data(), page_size, MLOCK_ONFAULT) < 0) {
      return true;  // nobody could have used it
    }
    const auto areas = procfs::parse_smaps(procfs::Task(::getpid()).read("smaps"));
    return std::any_of(areas.begin(), areas.end(), [](const auto& area) { return area.has("lf"); });
  }();
  return shows;
}

}  // namespace

// Where the kernel does not tell: what is locked and can be read is there as a whole, unless it waits for faults.
bool is_locked_on_fault(const procfs::Area& area) {
  if (!area.has("lo") || area.has("lf")) {
    return area.has("lo");
  }
  return area.readable && area.resident < area.end - area.start && !kernel_shows_lock_on_fault();
}

void merge(std::vector<Interval>& intervals) {
  std::sort(intervals.begin(), intervals.end(), [](const Interval& a, const Interval& b) { return a.start < b.start; });
  std::size_t last = 0;
  for (std::size_t i = 1; i < intervals.size(); ++i) {
    if (intervals[i].start <= intervals[last].end) {
      intervals[last].end = std::max(intervals[last].end, intervals[i].end);
    } else {
      intervals[++last] = intervals[i];
    }
  }
  intervals.resize(std::min(intervals.size(), last + 1));
}

std::uint64_t task_size() { return 0x7ffffffff000; }

std::vector<Interval> own_mappings() {
  std::vector<Interval> result;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    char* at = nullptr;
    const auto start = std::strtoull(line.c_str(), &at, 16);
    const auto end = std::strtoull(at + 1, nullptr, 16);
    if (end <= task_size()) {
      result.push_back({start, end});
    }
  }
  if (result.empty()) {
    throw base::Error("read", "/proc/self/maps", errno);
  }
  return result;
}

std::uint64_t Space::map(std::uint64_t size, std::uint64_t alignment, int protection, int flags) {
  const auto try_at = [&](std::uint64_t at) {
    return ::mmap(reinterpret_cast<void*>(at), size, protection,  // NOLINT
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags, -1, 0) != MAP_FAILED;
  };
  auto at = find(size, alignment);
  bool mapped = try_at(at);
  if (!mapped && errno == EEXIST) {
    take(own_mappings());
    at = find(size, alignment);
    mapped = try_at(at);
  }
  if (!mapped) {
    throw base::Error("reserve room in the address space", fmt::format("{} bytes", size), errno);
  }
  return at;
}

std::uint64_t Space::find_remote(std::uint64_t size, std::uint64_t alignment) {
  merge(taken_);
  Interval largest{lowest, lowest};
  std::uint64_t at = lowest;
  for (const auto& range : taken_) {
    const auto end = std::min(range.start, task_size());  // [vsyscall] lies beyond
    if (end > at && end - at > largest.end - largest.start) {
      largest = {at, end};
    }
    at = std::max(at, range.end);
  }
  if (largest.end - largest.start < size + alignment) {
    return find(size, alignment);
  }
  const auto middle = largest.start + (largest.end - largest.start - size) / 2;
  const auto found = middle / alignment * alignment;
  take(found, found + size);
  return found;
}

std::uint64_t Space::find(std::uint64_t size, std::uint64_t alignment) {
  merge(taken_);
  std::uint64_t at = lowest;
  const auto aligned = [&](std::uint64_t address) { return (address + alignment - 1) / alignment * alignment; };
  at = aligned(at);
  for (const auto& range : taken_) {
    if (range.start >= at && range.start - at >= size) {
      break;
    }
    at = std::max(at, aligned(range.end));
  }
  if (at + size > task_size()) {
    throw base::Error("find room in the address space", fmt::format("{} bytes", size), ENOMEM);
  }
  take(at, at + size);
  return at;
}

}  // namespace criu::memory
