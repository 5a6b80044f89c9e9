// SPDX-License-Identifier: GPL-2.0-only
#include "contents.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <ghost-file.pb.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "base/error.hpp"

namespace coredump {

namespace {

using base::Error;
using crit::Area;

constexpr std::uint64_t piece_size = 1024 * 1024;

class File : public Backing {
 public:
  File(base::Fd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}

  void copy(std::uint64_t at, std::uint64_t size, char* to) const override {
    while (size > 0) {
      const auto got =
          base::check(::pread(fd_.get(), to, static_cast<std::size_t>(size), static_cast<off_t>(at)), "read", name_);
      if (got == 0) {
        return;
      }
      const auto part = static_cast<std::uint64_t>(got);
      to += part;
      at += part;
      size -= part;
    }
  }

 private:
  base::Fd fd_;
  std::string name_;
};

class Object : public Backing {
 public:
  explicit Object(crit::Pages pages) : pages_(std::move(pages)) {}
  void copy(std::uint64_t at, std::uint64_t size, char* to) const override { pages_.copy(at, size, to); }

 private:
  crit::Pages pages_;
};

// The contents of a file that was deleted, out of the checkpoint into a file without a name.
base::Fd unpack_ghost(const std::string& image) {
  crit::Source source(image);
  if (std::string_view(crit::read_magic(source).name) != "GHOST_FILE") {
    source.corrupt("this is no ghost file");
  }
  crit::pb::ghost_file_entry head;
  if (!crit::read_record(source, head)) {
    source.corrupt("a ghost file without its head");
  }
  const auto directory = std::filesystem::temp_directory_path().string();
  base::Fd fd(base::check(::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), "create a temporary file",
                          directory, "TMPDIR says where"));
  std::uint64_t at = 0;
  const auto put = [&](std::string_view bytes) {
    while (!bytes.empty()) {
      const auto done = base::check(::pwrite(fd.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)),
                                    "write a temporary file", directory);
      at += static_cast<std::uint64_t>(done);
      bytes.remove_prefix(static_cast<std::size_t>(done));
    }
  };
  if (!head.chunks()) {
    source.copy(std::nullopt, piece_size, put);
    return fd;
  }
  for (crit::pb::ghost_chunk_entry chunk; crit::read_record(source, chunk); chunk.Clear()) {
    at = chunk.off();
    source.copy(chunk.len(), piece_size, put);
  }
  return fd;
}

}  // namespace

std::shared_ptr<Backing> Contents::open_file(std::uint32_t id) const {
  const auto* entry = checkpoint_.find_file(id);
  if (entry == nullptr || !entry->has_reg()) {
    throw Error("corrupt checkpoint", fmt::format("{}: no file {}", checkpoint_.path(), id), 0);
  }
  auto path = entry->reg().name();
  if (const auto* remap = checkpoint_.find_remap(id)) {
    if (remap->remap_type() == crit::pb::GHOST) {
      const auto image = checkpoint_.file(fmt::format("ghost-file-{:x}.img", remap->remap_id()));
      return std::make_shared<File>(unpack_ghost(image), image);
    }
    path = checkpoint_.path_of(remap->remap_id()).value_or(path);
  }
  base::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat st {};
  if (!fd || ::fstat(fd.get(), &st) != 0) {
    throw Error("Required file " + path + " not found.", "", 0);
  }
  if (!S_ISREG(st.st_mode)) {
    return nullptr;  // /dev/zero
  }
  if (entry->reg().has_size() && entry->reg().size() != static_cast<std::uint64_t>(st.st_size)) {
    std::fprintf(stderr, "coredump: warning: %s is not the file that was mapped: %llu bytes, then %llu\n", path.c_str(),
                 static_cast<unsigned long long>(st.st_size), static_cast<unsigned long long>(entry->reg().size()));
  }
  return std::make_shared<File>(std::move(fd), path);
}

std::shared_ptr<Backing> Contents::shared_object(std::uint64_t shmid) const {
  return std::make_shared<Object>(crit::Pages::read(checkpoint_.path(), fmt::format("pagemap-shmem-{}.img", shmid)));
}

std::shared_ptr<Backing> Contents::open_backing(const crit::pb::vma_entry& area) {
  const auto status = area.status();
  const auto once = [](auto& known, std::uint64_t key, const auto& make) {
    const auto found = known.find(key);
    return found != known.end() ? found->second : known.emplace(key, make()).first->second;
  };
  if ((status & Area::anon_shared) != 0) {
    return once(objects_, area.shmid(), [&] { return shared_object(area.shmid()); });
  }
  if ((status & (Area::file_private | Area::file_shared)) == 0) {
    return nullptr;
  }
  if ((status & Area::memfd_area) == 0) {
    return once(files_, area.shmid(), [&] { return open_file(static_cast<std::uint32_t>(area.shmid())); });
  }
  const auto* file = checkpoint_.find_file(static_cast<std::uint32_t>(area.shmid()));
  const auto* inode = file != nullptr && file->has_memfd() ? checkpoint_.find_memfd(file->memfd().inode_id()) : nullptr;
  if (inode == nullptr) {
    throw Error("corrupt checkpoint", fmt::format("{}: no memfd {}", checkpoint_.path(), area.shmid()), 0);
  }
  return once(objects_, inode->shmid(), [&] { return shared_object(inode->shmid()); });
}

std::shared_ptr<Backing> Contents::backing_of(const crit::pb::vma_entry& area) {
  // Of the kernel's own pages only the saved ones are known.
  return (area.status() & (Area::vsyscall | Area::vvar)) != 0 ? nullptr : open_backing(area);
}

void Contents::each(const crit::pb::vma_entry& area, std::uint64_t size, const crit::Pages& pages, const Piece& piece) {
  const auto backing = backing_of(area);
  const auto end = area.start() + size;
  std::string bytes;
  const auto give = [&](std::uint64_t from, std::uint64_t to) {
    for (auto at = from; at < to; at += bytes.size()) {
      bytes.assign(static_cast<std::size_t>(std::min(piece_size, to - at)), '\0');
      if (backing != nullptr) {
        backing->copy(area.pgoff() + (at - area.start()), bytes.size(), bytes.data());
      }
      pages.copy(at, bytes.size(), bytes.data());
      piece(at, bytes);
    }
  };
  if (backing != nullptr) {
    give(area.start(), end);
    return;
  }
  for (auto run = pages.from(area.start()); run != pages.runs().end() && run->start < end; ++run) {
    give(std::max(run->start, area.start()), std::min(run->end(), end));
  }
}

}  // namespace coredump
