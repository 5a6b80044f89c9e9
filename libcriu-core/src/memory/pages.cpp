// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/pages.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <pagemap.pb.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/error.hpp"

namespace criu::memory {

using base::check;
using base::Error;

namespace {

enum Flags : std::uint32_t { in_parent = 1, lazy = 2, present = 4 };

constexpr std::size_t longest_chain = 250;  // each level keeps files open, of which a process may have 1024 by default
constexpr std::string_view parent_step = "parent/";

struct Entry {
  std::uint64_t start, size;
  std::uint32_t flags;
};

Entry decode(const images::pagemap_entry& message, const std::string& name, std::uint64_t last) {
  Entry entry{message.vaddr(), message.has_nr_pages() ? message.nr_pages() : message.compat_nr_pages(),
              message.flags()};
  if (!message.has_flags() && !message.in_parent()) {
    entry.flags = present;
  }
  if (message.in_parent()) {
    entry.flags |= in_parent;
  }
  if (entry.start % page_size != 0 || entry.size == 0 || entry.size > (std::uint64_t{1} << 51) || entry.start < last ||
      entry.start + entry.size * page_size < entry.start) {
    throw Error("corrupt image", fmt::format("{}: {} pages at {:#x}", name, entry.size, entry.start), 0);
  }
  entry.size *= page_size;
  return entry;
}

// The part of `from` that the entry stands for, which must be covered without a gap. `first_file` is what the parent's
// files are numbered from.
void take_from_parent(const std::vector<Run>& from, std::size_t first_file, const Entry& entry, const std::string& name,
                      std::vector<Run>& into) {
  auto run = std::upper_bound(from.begin(), from.end(), entry.start,
                              [](std::uint64_t at, const Run& r) { return at < r.start + r.size; });
  std::uint64_t at = entry.start;
  const std::uint64_t end = entry.start + entry.size;
  for (; at < end && run != from.end() && run->start <= at; ++run) {
    const auto size = std::min(end, run->start + run->size) - at;
    into.push_back({at, size, first_file + run->file, run->offset + (at - run->start)});
    at += size;
  }
  if (at < end) {
    throw Error("corrupt checkpoint",
                fmt::format("{} refers to pages at {:#x} that its parent does not have", name, at), 0);
  }
}

}  // namespace

Pagemap Pagemap::read(const image::Directory& dir, const image::Type& type, std::uint64_t number, bool optional) {
  Pagemap pagemap;
  pagemap.add(dir, type, number, {}, optional);
  return pagemap;
}

void Pagemap::close_files() {
  for (auto& file : files_) {
    file.fd = {};
  }
}

void Pagemap::open_files(const image::Directory& dir) {
  for (auto& file : files_) {
    file.fd = dir.open_file(file.path);
    check(file.fd.get(), "open pages image", file.path);
  }
}

void Pagemap::add(const image::Directory& dir, const image::Type& type, std::uint64_t number, const std::string& way,
                  bool optional) {
  auto reader = dir.open(type, number);
  if (!reader) {
    if (optional) {
      return;
    }
    throw Error("open image", image::file_name(type, number), ENOENT);
  }
  images::pagemap_head head;
  if (!reader->next(head)) {
    throw Error("corrupt image", reader->name() + ": no head", 0);
  }
  const auto pages_name = image::file_name(image::type::pages, head.pages_id());
  auto pages = dir.open_file(pages_name);
  struct stat st {};
  if (pages) {
    check(::fstat(pages.get(), &st), "stat image", pages_name);
  }
  Pagemap parent;
  bool parent_read = false;
  std::uint64_t offset = 0;
  std::uint64_t last = 0;
  images::pagemap_entry message;
  while (reader->next(message)) {
    const auto entry = decode(message, reader->name(), last);
    last = entry.start + entry.size;
    if ((entry.flags & present) != 0) {
      if (!pages || offset + entry.size > static_cast<std::uint64_t>(st.st_size)) {
        throw Error("corrupt checkpoint",
                    fmt::format("{} is missing or shorter than {} says", pages_name, reader->name()), 0);
      }
      runs_.push_back({entry.start, entry.size, 0, offset});
      offset += entry.size;
    } else if ((entry.flags & in_parent) != 0) {
      if (!parent_read) {
        if (way.size() == longest_chain * parent_step.size()) {
          throw Error("corrupt checkpoint", "the chain of parent images has no end", 0);
        }
        parent.add(dir.below("parent"), type, number, way + std::string(parent_step), false);
        parent_read = true;
      }
      take_from_parent(parent.runs_, pages ? 1 : 0, entry, reader->name(), runs_);
    } else {
      throw Error("cannot restore", reader->name(), 0, "its pages were left to a lazy-pages server");
    }
  }
  if (pages) {
    files_.push_back({way + pages_name, std::move(pages)});
  }
  std::move(parent.files_.begin(), parent.files_.end(), std::back_inserter(files_));
}

}  // namespace criu::memory
