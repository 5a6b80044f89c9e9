// SPDX-License-Identifier: LGPL-2.1-only
#include "files/watched.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.hpp"
#include "dump_context.hpp"
#include "files/removed.hpp"
#include "log.hpp"
#include "restore_context.hpp"
#include "stats.hpp"

namespace criu::files {

using base::Error;

namespace {

constexpr int handle_words = 16;

// Filesystems without a block device (in memory, or in layers) forget their handles with their last mount, if they
// have any at all.
bool is_lasting(std::uint32_t dev) { return dev >> 20 != 0; }

void put_handle(const kernel::FileHandle& handle, images::fh_entry& entry) {
  std::uint64_t words[handle_words] = {};
  std::memcpy(words, handle.bytes.data(), std::min(handle.bytes.size(), sizeof words));
  entry.set_bytes(static_cast<std::uint32_t>(handle.bytes.size()));
  entry.set_type(static_cast<std::uint32_t>(handle.type));
  for (const auto word : words) {
    entry.add_handle(word);
  }
}

kernel::FileHandle take_handle(const images::fh_entry& entry, const std::string& what) {
  kernel::FileHandle handle;
  handle.type = static_cast<int>(entry.type());
  for (const auto word : entry.handle()) {
    handle.bytes.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  if (entry.bytes() > handle.bytes.size()) {
    throw Error("corrupt checkpoint", what + ": a file handle longer than it is", 0);
  }
  handle.bytes.resize(entry.bytes());
  return handle;
}

// Where services keep what others watch. Whoever watches elsewhere names it with --irmap-scan-path.
constexpr const char* usual_places[] = {"/etc",       "/run",     "/dev",     "/tmp",      "/var/spool",
                                        "/var/cache", "/var/log", "/var/lib", "/lib/udev", "/usr/share"};

}  // namespace

const kernel::Mounts& WatchedInodes::mounts() {
  if (mounts_ == nullptr) {
    mounts_ = std::make_unique<kernel::Mounts>();
  }
  return *mounts_;
}

void WatchedInodes::meet(const kernel::WatchMark& mark) {
  const auto [known, is_new] = found_.try_emplace({mark.dev, mark.ino});
  auto& found = known->second;
  if (!is_new) {
    return;
  }
  found.mark = mark;
  look_by_handle(found);
  const bool settled = found.removed || !found.path.empty() || found.by_handle;
  if (!settled || (dump_.options.force_irmap && !found.removed)) {
    found.path.clear();
    wanted_.emplace(mark.ino, &found);
  }
}

void WatchedInodes::look_by_handle(Found& found) {
  const auto& mark = found.mark;
  struct stat st {};
  const auto accept = [&](int fd) {
    if (::fstat(fd, &st) < 0 || (st.st_ino != mark.ino && !probe_.is(fd, mark))) {
      return false;
    }
    if (st.st_nlink == 0) {
      return true;
    }
    found.path = kernel::path_of(fd);
    return is_lasting(mark.dev) || !found.path.empty();
  };
  const auto fd = mounts().open_handle(mark.dev, mark.handle, accept);
  found.by_handle = static_cast<bool>(fd);
  if (fd && st.st_nlink == 0) {
    found.removed = {st.st_dev, st.st_ino};
  } else if (is_lasting(mark.dev)) {
    found.path.clear();
  } else if (!fd) {
    // It has a handle but no name: good until the filesystem is unmounted.
    found.by_handle = static_cast<bool>(
        mounts().open_handle(mark.dev, mark.handle, [&](int candidate) { return probe_.is(candidate, mark); }));
  }
}

void WatchedInodes::describe(const kernel::WatchMark& mark, const Removed& removed, const std::string& what,
                             images::fh_entry& entry) {
  if (!wanted_.empty()) {
    const Stopwatch stopwatch;
    scan();
    scan_time_ += stopwatch.microseconds();
    wanted_.clear();
  }
  const auto& found = found_.at({mark.dev, mark.ino});
  put_handle(mark.handle, entry);
  if (found.removed) {
    if (!removed.has_ghost(found.removed->first, found.removed->second)) {
      throw Error("cannot dump",
                  what + " is on a file without a name that nothing in the tree has open, so that it is not saved", 0);
    }
  } else if (!found.path.empty()) {
    entry.set_path(found.path);
  } else if (!found.by_handle || dump_.options.force_irmap) {
    throw Error("cannot dump",
                fmt::format("{} is on inode {} of device {}:{}, whose path is not found", what, mark.ino,
                            mark.dev >> 20, mark.dev & 0xfffff),
                0, "--irmap-scan-path names a directory to look in");
  }
}

const kernel::Mount& WatchedInodes::mount(int id, const std::string& what) {
  const auto* mount = mounts().by_id(id);
  if (mount == nullptr || !kernel::Mounts::open(*mount)) {
    throw Error("cannot dump", fmt::format("{} is on mount {}, which is hidden or unmounted", what, id), 0);
  }
  return *mount;
}

const kernel::Mount& WatchedInodes::mount_of(std::uint32_t dev, const std::string& what) {
  for (const auto* mount : mounts().of_device(dev)) {
    if (mount->dev == dev && kernel::Mounts::open(*mount)) {
      return *mount;
    }
  }
  throw Error(
      "cannot dump",
      fmt::format("{} is on the filesystem of device {}:{}, which is not mounted here", what, dev >> 20, dev & 0xfffff),
      0);
}

// ---- scanning

bool WatchedInodes::claim(Found& found, int directory, const char* name, const std::string& path) {
  const base::Fd fd(::openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
  if (!fd || !probe_.is(fd.get(), found.mark)) {
    return false;
  }
  found.path = path;
  return true;
}

void WatchedInodes::consider(std::uint64_t ino, int directory, const char* name, const std::string& path) {
  const auto [begin, end] = wanted_.equal_range(ino);
  for (auto at = begin; at != end; ++at) {
    if (claim(*at->second, directory, name, path)) {
      wanted_.erase(at);
      return;
    }
  }
}

void WatchedInodes::read_cache(const std::string& directory) {
  const base::Fd dir(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  base::Fd file(dir ? ::openat(dir.get(), image::file_name(image::type::irmap_cache).c_str(), O_RDONLY | O_CLOEXEC)
                    : -1);
  if (!file) {
    return;
  }
  image::Reader reader(std::move(file), directory + "/" + image::type::irmap_cache.name, image::type::irmap_cache);
  images::irmap_cache_entry entry;
  while (reader.next(entry)) {
    if (entry.path().starts_with('/')) {
      consider(entry.inode(), AT_FDCWD, entry.path().c_str(), entry.path());
    }
  }
}

void WatchedInodes::scan() {
  // The roots of filesystems are watched more than anything else.
  for (const auto& mount : mounts().all()) {
    struct stat st {};
    if (const auto root = kernel::Mounts::open(mount); root && ::fstat(root.get(), &st) == 0) {
      consider(st.st_ino, AT_FDCWD, mount.point.c_str(), mount.point);
    }
  }
  for (const auto& directory : {work_dir(dump_.options), work_dir(dump_.options) + "/parent"}) {
    if (!wanted_.empty()) {
      read_cache(directory);
    }
  }
  for (const auto& path : dump_.options.irmap_scan_paths) {
    scan_below(path);
  }
  for (const char* path : usual_places) {
    scan_below(path);
  }
}

namespace {

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

}  // namespace

// Everything below a directory on the same filesystem, and it itself.
void WatchedInodes::scan_below(const std::string& top) {
  struct stat st {};
  if (wanted_.empty() || ::lstat(top.c_str(), &st) < 0) {
    return;
  }
  consider(st.st_ino, AT_FDCWD, top.c_str(), top);
  const auto filesystem = st.st_dev;
  std::vector<std::string> left{top};
  while (!left.empty() && !wanted_.empty()) {
    const auto path = std::move(left.back());
    left.pop_back();
    const std::unique_ptr<DIR, CloseDirectory> directory(::opendir(path.c_str()));
    if (directory == nullptr || ::fstat(::dirfd(directory.get()), &st) < 0 || st.st_dev != filesystem) {
      continue;
    }
    while (const auto* entry = ::readdir(directory.get())) {
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") {
        continue;
      }
      const auto full = (path == "/" ? "" : path) + "/" + entry->d_name;
      consider(entry->d_ino, ::dirfd(directory.get()), entry->d_name, full);
      if (entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN) {
        left.push_back(full);
      }
    }
  }
}

// ---- restore

base::Fd open_watched(RestoreContext& context, std::uint32_t dev, std::uint64_t ino, const images::fh_entry& entry,
                      const std::string& what) {
  if (const int removed = context.objects.remaps.find_inode(dev, ino); removed >= 0) {
    return base::Fd(base::check(::fcntl(removed, F_DUPFD_CLOEXEC, context.first_internal_fd), "duplicate", what));
  }
  if (entry.path().starts_with('/')) {
    base::Fd fd(::open(entry.path().c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (fd || entry.bytes() == 0) {
      base::check(fd.get(), "open", fmt::format("{} for {}", entry.path(), what));
      return fd;
    }
  }
  auto& mounts = context.objects.mounts;
  if (mounts == nullptr) {
    mounts = std::make_unique<kernel::Mounts>();
  }
  auto fd = mounts->open_handle(dev, take_handle(entry, what), [ino](int candidate) {
    struct stat st {};
    return ::fstat(candidate, &st) == 0 && st.st_ino == ino;
  });
  if (!fd) {
    throw Error("cannot restore",
                fmt::format("{}: inode {} of device {}:{}{} is not there any more", what, ino, dev >> 20, dev & 0xfffff,
                            entry.has_path() ? " (" + entry.path() + ")" : ""),
                0, "--force-irmap at the dump keeps its path, which holds on other machines, too");
  }
  return fd;
}

}  // namespace criu::files
