// SPDX-License-Identifier: LGPL-2.1-only
// What the running kernel offers. Each probe asks by calling, never by version number: distributions backport, and
// configurations remove. A probe runs once, when somebody first wants to know.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace criu::kernel {

// When `check` looks at a feature without being asked for it by name.
enum class Wanted { on_request, extra, experimental, informative };

struct Feature {
  const char* name;
  Wanted wanted;
  bool (*probe)();

  bool supported() const;
};

// In the order that `check --extra` goes through them.
std::span<const Feature> features();
// Null: there is no such name.
const Feature* find_feature(std::string_view name);
bool supported(std::string_view name);

}  // namespace criu::kernel
