// SPDX-License-Identifier: LGPL-2.1-only
// The page store of a checkpoint: which pages of an address space (or of a shared object) were saved, and where.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "image/directory.hpp"

namespace criu::memory {

constexpr std::uint64_t page_size = 4096;

// Consecutive pages, consecutive in one file.
struct Run {
  std::uint64_t start;   // address, or offset in a shared object; bytes
  std::uint64_t size;    // bytes
  std::size_t file;      // which of the pagemap's files has them
  std::uint64_t offset;  // in that file
};

// One pagemap image with the parents it refers to, resolved: all runs ascending and disjoint.
class Pagemap {
 public:
  // Nothing saved (no image) is an empty pagemap when `optional`, else an Error.
  static Pagemap read(const image::Directory& dir, const image::Type& type, std::uint64_t number,
                      bool optional = false);

  const std::vector<Run>& runs() const { return runs_; }
  int fd(const Run& run) const { return files_[run.file].fd.get(); }

  // Who reads the pagemaps of many tasks before any of them is filled cannot have all their files open meanwhile.
  void close_files();
  void open_files(const image::Directory& dir);

 private:
  struct File {
    std::string path;  // from the directory of the checkpoint
    base::Fd fd;
  };

  void add(const image::Directory& dir, const image::Type& type, std::uint64_t number, const std::string& way,
           bool optional);

  std::vector<Run> runs_;
  std::vector<File> files_;
};

}  // namespace criu::memory
