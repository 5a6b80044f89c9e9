// SPDX-License-Identifier: GPL-2.0-only
#define CATCH_CONFIG_RUNNER
#include "samples.hpp"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>

namespace interop {

namespace fs = std::filesystem;

namespace {

constexpr int meson_skipped = 77;

void unpack(const fs::path& archive, const fs::path& into) {
  const auto from = archive.string();
  const auto to = into.string();
  const char* const arguments[] = {"tar", "-xJf", from.c_str(), "-C", to.c_str(), nullptr};
  pid_t pid = 0;
  if (::posix_spawnp(&pid, "tar", nullptr, nullptr, const_cast<char* const*>(arguments), environ) != 0) {
    throw std::runtime_error("can't run tar");
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  if (status != 0) {
    throw std::runtime_error("tar could not unpack " + from);
  }
}

}  // namespace

fs::path shared_directory() {
  const char* given = std::getenv("CRIU_SHARED");
  const fs::path path = given != nullptr ? fs::path(given) : fs::path(SOURCE_ROOT) / ".." / "shared";
  return fs::is_directory(path / "samples") ? path : fs::path();
}

Sample::Sample(const std::string& name) {
  const auto sample = shared_directory() / "samples" / name;
  std::string pattern = (fs::temp_directory_path() / "criu-interop-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    throw std::runtime_error("can't make a directory in " + fs::temp_directory_path().string());
  }
  scratch_ = fs::path(pattern) / "scratch";
  fs::create_directory(scratch_);
  json_ = sample / "json";
  images_ = sample / "img";
  if (!fs::is_directory(images_)) {
    unpack(sample / "img.tar.xz", pattern);
    images_ = fs::path(pattern) / "img";
  }
}

Sample::~Sample() {
  std::error_code ignored;
  fs::remove_all(scratch_.parent_path(), ignored);
}

std::vector<fs::path> Sample::files() const {
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(images_)) {
    if (entry.is_regular_file()) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int run_tests(int argc, char** argv) {
  if (shared_directory().empty()) {
    std::cout << "SKIPPED: no samples of CRIU 4.2 in ../shared; set CRIU_SHARED to the directory that has samples/\n";
    return meson_skipped;
  }
  return Catch::Session().run(argc, argv);
}

}  // namespace interop

int main(int argc, char** argv) { return interop::run_tests(argc, argv); }
