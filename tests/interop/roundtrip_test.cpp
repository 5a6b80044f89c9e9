// SPDX-License-Identifier: GPL-2.0-only
// What CRIU 4.2 wrote is decoded by our classes, and written again to the same bytes.
#include <fcntl.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "base/fd.hpp"
#include "codecs.hpp"
#include "samples.hpp"

namespace fs = std::filesystem;
namespace image = criu::image;

namespace {

void rewrite(const fs::path& from, const fs::path& into_directory, const interop::Codec& codec) {
  image::Reader reader(base::Fd(::open(from.c_str(), O_RDONLY | O_CLOEXEC)), from.filename(), *codec.type);
  const base::Fd directory(::open(into_directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  image::Writer writer(directory.get(), from.filename(), *codec.type);
  writer.touch();
  codec.copy(reader, writer);
  writer.finish();
}

}  // namespace

TEST_CASE("every image of every sample is of a known type") {
  for (const auto& name : interop::sample_names) {
    const interop::Sample sample(name);
    CHECK_FALSE(sample.files().empty());
    for (const auto& file : sample.files()) {
      CHECK_NOTHROW(interop::codec_of(file.filename()));
    }
  }
}

TEST_CASE("images re-encode to the same bytes") {
  const auto name = GENERATE(from_range(interop::sample_names));
  const interop::Sample sample(name);
  unsigned decoded = 0;
  for (const auto& file : sample.files()) {
    const auto codec = interop::codec_of(file.filename());
    if (codec.type == nullptr) {
      continue;
    }
    INFO(name << "/" << file.filename().string());
    REQUIRE_NOTHROW(rewrite(file, sample.scratch(), codec));
    // Not compared inside the macro: a page file would be printed in full.
    const bool same = interop::read_file(file) == interop::read_file(sample.scratch() / file.filename());
    CHECK(same);
    ++decoded;
  }
  CHECK(decoded > 10);
}
