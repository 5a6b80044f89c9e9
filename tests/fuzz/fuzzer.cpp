// SPDX-License-Identifier: GPL-2.0-only
// One libFuzzer program for each entry, named by FUZZ_ENTRY. With FUZZ_SEEDS=DIR it first puts its seeds there.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "entries.hpp"

namespace {

const fuzz::Entry& chosen() {
  for (const auto& entry : fuzz::entries()) {
    if (std::strcmp(entry.name, FUZZ_ENTRY) == 0) {
      return entry;
    }
  }
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  if (const char* directory = std::getenv("FUZZ_SEEDS")) {
    int number = 0;
    for (const auto& seed : chosen().seeds()) {
      std::ofstream(std::string(directory) + "/seed-" + std::to_string(number++), std::ios::binary) << seed;
    }
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto& entry = chosen();
  entry.run(std::as_bytes(std::span(data, size)));
  return 0;
}
