// SPDX-License-Identifier: GPL-2.0-only
// The checkpoints that CRIU 4.2 wrote, which the interop tests read.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace interop {

inline const std::vector<std::string> sample_names{"sleep", "kitchen", "runc-busybox", "ns-kitchen"};

// The directory with samples/ and spec/: $CRIU_SHARED, or ../shared beside the source tree. Empty when there is none.
std::filesystem::path shared_directory();

// One sample's images, unpacked for as long as this lives.
class Sample {
 public:
  explicit Sample(const std::string& name);
  ~Sample();
  Sample(const Sample&) = delete;
  Sample& operator=(const Sample&) = delete;

  const std::filesystem::path& images() const { return images_; }
  const std::filesystem::path& json() const { return json_; }
  // An empty directory of this test's own.
  const std::filesystem::path& scratch() const { return scratch_; }
  // The image files, sorted by name.
  std::vector<std::filesystem::path> files() const;

 private:
  std::filesystem::path images_, json_, scratch_;
};

std::string read_file(const std::filesystem::path& path);

// Runs the tests, or says loudly that there is nothing to test against and returns meson's "skipped".
int run_tests(int argc, char** argv);

}  // namespace interop
