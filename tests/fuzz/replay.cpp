// SPDX-License-Identifier: GPL-2.0-only
// The entries of the fuzzers without a fuzzer: every seed as it is, and some thousand variants of it, always the same.
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <random>

#include "entries.hpp"

namespace {

constexpr int variants = 3000;

std::string damaged(const std::string& seed, std::minstd_rand& chance) {
  auto bytes = seed;
  const auto below = [&chance](std::size_t limit) { return limit == 0 ? 0 : chance() % limit; };
  static const std::string telling[] = {"\xff", std::string(1, '\0'),   "\x7f", "\x80",
                                        "-1",   "99999999999999999999", "\n",   " "};
  for (auto times = 1 + below(4); times > 0; --times) {
    const auto at = below(bytes.size() + 1);
    switch (below(6)) {
      case 0:
        bytes.resize(at);
        break;
      case 1:
        bytes.insert(at, telling[below(std::size(telling))]);
        break;
      case 2:
        bytes.insert(at, bytes.substr(below(bytes.size() + 1), below(64)));
        break;
      case 3:
        bytes.erase(at, below(16));
        break;
      default:
        if (at < bytes.size()) {
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
        }
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  int bad = 0;
  for (const auto& entry : fuzz::entries()) {
    if (argc > 1 &&
        std::none_of(argv + 1, argv + argc, [&](const char* name) { return std::string(name) == entry.name; })) {
      continue;
    }
    std::cout << entry.name << std::endl;  // flushed: a crash has to show where
    std::minstd_rand chance(4711);
    int number = 0;
    try {
      for (const auto& seed : entry.seeds()) {
        entry.run(std::as_bytes(std::span(seed)));
        for (number = 1; number <= variants; ++number) {
          const auto bytes = damaged(seed, chance);
          entry.run(std::as_bytes(std::span(bytes)));
        }
      }
    } catch (const std::exception& error) {
      std::cout << "  variant " << number << ": " << error.what() << "\n";
      ++bad;
    }
  }
  return bad == 0 ? 0 : 1;
}
