// SPDX-License-Identifier: GPL-2.0-only
// The C++ wrapper, seen by a program that knows nothing else of the suite.
#include <criu/core.hpp>
#include <cstdio>
#include <cstring>
#include <utility>

namespace {

bool refused() {
  criu::core::Options options;
  options.set("verbosity", "0").set("images-dir", "/nowhere/at/all");
  auto copy = options;
  const auto moved = std::move(options);
  copy = moved;
  try {
    criu::core::restore(copy);
  } catch (const criu::core::Error& error) {
    const criu::core::Error kept(error);  // it can be copied  NOLINT(performance-unnecessary-copy-initialization)
    return kept.kind() == CRIU_CORE_FAILED && std::strstr(kept.what(), "/nowhere") != nullptr;
  }
  return false;
}

bool checks() {
  criu::core::Options options;
  options.set("feature", "external_net_ns");
  const auto verdict = criu::core::check(options);
  return verdict.good && verdict.lines == std::vector<std::string>{"external_net_ns is supported"} &&
         criu::core::feature("external_net_ns");
}

}  // namespace

int main() {
  criu_core_log_to(2, 0);
  if (!refused() || !checks()) {
    std::fprintf(stderr, "wrapper: wrong\n");
    return 1;
  }
  return 0;
}
