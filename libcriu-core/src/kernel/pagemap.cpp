// SPDX-License-Identifier: LGPL-2.1-only
#include "kernel/pagemap.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.hpp"

namespace criu {

using base::check;
using base::Error;

namespace {

constexpr std::uint64_t page = 4096;

// linux/fs.h of 6.7 and later.
struct ScanRegion {
  std::uint64_t start, end, categories;
};
struct ScanArgument {
  std::uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
  std::uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
constexpr unsigned long pagemap_scan = 0xc0606610;
enum Category : std::uint64_t { is_file = 4, is_present = 8, is_swapped = 16, is_pfnzero = 32, is_guard = 256 };

// Raw entries.
constexpr std::uint64_t entry_present = std::uint64_t{1} << 63, entry_swapped = std::uint64_t{1} << 62,
                        entry_file = std::uint64_t{1} << 61, entry_guard = std::uint64_t{1} << 58;

// A marker looks like a swap entry of a type that no swap device has: write-protection, poison, guard. No contents.
bool is_marker(std::uint64_t entry) {
  return (entry & entry_present) == 0 && (entry & entry_swapped) != 0 && (entry & 31) == 31;
}

void append(std::vector<PageRegion>& to, const PageRegion& region) {
  if (!to.empty() && to.back().end == region.start && to.back().file == region.file &&
      to.back().guard == region.guard) {
    to.back().end = region.end;
  } else {
    to.push_back(region);
  }
}

}  // namespace

PageScanner::PageScanner(const procfs::Task& task, Method method)
    : fd_(task.open("pagemap", O_RDONLY)), method_(method) {}

std::vector<PageRegion> PageScanner::scan(const std::vector<PageRange>& ranges) const {
  std::vector<PageRegion> regions;
  if (ranges.empty()) {
    return regions;
  }
  // One walk skips what is between the ranges faster than one call for each would.
  if (method_ == Method::best && scan_fast(ranges.front().start, ranges.back().end, regions)) {
    return regions;
  }
  for (const auto& range : ranges) {
    scan_entries(range.start, range.end, regions);
  }
  return regions;
}

bool PageScanner::scan_fast(std::uint64_t start, std::uint64_t end, std::vector<PageRegion>& into) const {
  static std::uint64_t reported = is_file | is_present | is_swapped | is_guard;
  std::vector<ScanRegion> found(512);
  ScanArgument argument{};
  argument.size = sizeof argument;
  argument.start = start;
  argument.end = end;
  argument.vec = reinterpret_cast<std::uint64_t>(found.data());
  argument.vec_len = found.size();
  argument.category_inverted = is_pfnzero;
  argument.category_mask = is_pfnzero;
  argument.category_anyof_mask = is_present | is_swapped;
  argument.return_mask = reported;
  while (argument.start < end) {
    const int count = ::ioctl(fd_.get(), pagemap_scan, &argument);
    if (count < 0 && errno == EINVAL && (reported & is_guard) != 0) {
      reported &= ~static_cast<std::uint64_t>(is_guard);  // before 6.16
      argument.return_mask = reported;
      continue;
    }
    if (count < 0 && (errno == ENOTTY || errno == EINVAL)) {
      return false;
    }
    check(count, "scan the page map");
    for (int i = 0; i < count; ++i) {
      const auto& region = found[static_cast<std::size_t>(i)];
      if ((region.categories & is_guard) != 0) {
        append(into, {region.start, region.end, false, true});
      } else if ((region.categories & is_present) != 0) {
        append(into, {region.start, region.end, (region.categories & is_file) != 0, false});
      } else {
        scan_entries(region.start, region.end, into);  // swapped out, or a marker: the entry tells
      }
    }
    argument.start = argument.walk_end;
  }
  return true;
}

void PageScanner::scan_entries(std::uint64_t start, std::uint64_t end, std::vector<PageRegion>& into) const {
  std::vector<std::uint64_t> entries(std::min<std::uint64_t>(16384, (end - start) / page));
  for (auto at = start; at < end;) {
    const auto count = std::min<std::uint64_t>(entries.size(), (end - at) / page);
    const auto got =
        check(::pread(fd_.get(), entries.data(), count * 8, static_cast<off_t>(at / page * 8)), "read the page map");
    if (got == 0) {
      return;
    }
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(got) / 8; ++i, at += page) {
      const auto entry = entries[i];
      if ((entry & entry_guard) != 0 && (entry & entry_present) == 0) {
        append(into, {at, at + page, false, true});
      } else if ((entry & (entry_present | entry_swapped)) != 0 && !is_marker(entry)) {
        append(into, {at, at + page, (entry & entry_file) != 0, false});
      }
    }
  }
}

}  // namespace criu
