// SPDX-License-Identifier: LGPL-2.1-only
// A directory for images that are of no use but to be looked at while they are written.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "base/error.hpp"

namespace criu::image {

class ScratchDirectory {
 public:
  ScratchDirectory() {
    if (::mkdtemp(path_.data()) == nullptr) {
      throw base::Error("make a directory in", "/tmp", errno);
    }
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/criu-check-XXXXXX";
};

}  // namespace criu::image
