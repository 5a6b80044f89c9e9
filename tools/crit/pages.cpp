// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <fmt/format.h>
#include <pagemap.pb.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/error.hpp"
#include "checkpoint.hpp"

namespace crit {

using base::Error;

namespace {

constexpr std::uint32_t in_parent = 1;
constexpr std::uint32_t present = 4;
constexpr int longest_chain = 250;  // each level keeps files open, of which a process may have 1024 by default

struct Entry {
  std::uint64_t start, size;
  std::uint32_t flags;
};

Entry checked(const pb::pagemap_entry& message, const Source& source, std::uint64_t last) {
  Entry entry{message.vaddr(), message.has_nr_pages() ? message.nr_pages() : message.compat_nr_pages(),
              message.flags()};
  if (message.in_parent()) {
    entry.flags |= in_parent;
  } else if (!message.has_flags()) {
    entry.flags = present;
  }
  if (entry.start % page_size != 0 || entry.start < last ||
      entry.size > UINT64_MAX / page_size - entry.start / page_size) {
    source.corrupt(fmt::format("{} pages at {:#x}", entry.size, entry.start));
  }
  entry.size *= page_size;
  return entry;
}

}  // namespace

Pages Pages::read(const std::string& directory, const std::string& pagemap, int depth) {
  Pages pages;
  pages.name_ = directory + "/" + pagemap;
  struct stat st {};
  if (::stat(pages.name_.c_str(), &st) != 0) {
    base::check(errno == ENOENT ? 0 : -1, "open", pages.name_);
    return pages;
  }
  Source source(pages.name_);
  if (std::string_view(read_magic(source).name) != "PAGEMAP") {
    source.corrupt("this is no pagemap");
  }
  pb::pagemap_head head;
  if (!read_record(source, head)) {
    source.corrupt("a pagemap without its head");
  }
  pages.pages_id_ = head.pages_id();
  const auto name = fmt::format("{}/pages-{}.img", directory, head.pages_id());
  auto file = std::make_shared<base::Fd>(::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  pages.files_.push_back(file);
  const std::uint64_t there = *file && ::fstat(file->get(), &st) == 0 ? static_cast<std::uint64_t>(st.st_size) : 0;
  std::optional<Pages> parent;
  std::uint64_t offset = 0;
  std::uint64_t last = 0;
  for (pb::pagemap_entry message; read_record(source, message); message.Clear()) {
    const auto entry = checked(message, source, last);
    last = entry.start + entry.size;
    if ((entry.flags & present) != 0) {
      if (there < offset || there - offset < entry.size) {
        throw Error("corrupt checkpoint", fmt::format("{} is missing or shorter than {} says", name, pages.name_), 0);
      }
      pages.runs_.push_back({entry.start, entry.size, file->get(), offset, false});
      offset += entry.size;
    } else if ((entry.flags & in_parent) != 0) {
      if (!parent) {
        if (depth == longest_chain) {
          throw Error("corrupt checkpoint", "the chain of parent images has no end", 0);
        }
        // The directory itself: the kernel follows no more than forty links in one path.
        std::error_code none;
        const auto place = std::filesystem::canonical(directory + "/parent", none);
        parent = read(none ? directory + "/parent" : place.string(), pagemap, depth + 1);
        pages.files_.insert(pages.files_.end(), parent->files_.begin(), parent->files_.end());
      }
      auto at = entry.start;
      for (auto run = parent->from(at); at < last && run != parent->runs_.end() && run->start <= at; ++run) {
        const auto size = std::min(last, run->end()) - at;
        pages.runs_.push_back({at, size, run->fd, run->offset + (at - run->start), true});
        at += size;
      }
      if (at < last) {
        throw Error("corrupt checkpoint",
                    fmt::format("{} refers to pages at {:#x} that its parent does not have", pages.name_, at), 0);
      }
    } else {
      pages.runs_.push_back({entry.start, entry.size, -1, 0, false});
    }
  }
  return pages;
}

std::vector<Run>::const_iterator Pages::from(std::uint64_t at) const {
  return std::upper_bound(runs_.begin(), runs_.end(), at,
                          [](std::uint64_t a, const Run& run) { return a < run.end(); });
}

bool Pages::any(std::uint64_t at, std::uint64_t size) const {
  const auto run = from(at);
  return run != runs_.end() && run->start < at + size;
}

void Pages::copy(std::uint64_t at, std::uint64_t size, char* to) const {
  const auto end = at + size;
  for (auto run = from(at); run != runs_.end() && run->start < end; ++run) {
    auto place = std::max(at, run->start);
    const auto stop = std::min(end, run->end());
    if (run->fd < 0) {
      throw Error("no pages", fmt::format("{}: those at {:#x} were left to a lazy-pages server", name_, place), 0);
    }
    while (place < stop) {
      const auto got = base::check(::pread(run->fd, to + (place - at), static_cast<std::size_t>(stop - place),
                                           static_cast<off_t>(run->offset + (place - run->start))),
                                   "read pages of", name_);
      if (got == 0) {
        throw Error("read pages of", name_ + ": the file became shorter", 0);
      }
      place += static_cast<std::uint64_t>(got);
    }
  }
}

}  // namespace crit
