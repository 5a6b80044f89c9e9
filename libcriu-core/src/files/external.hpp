// SPDX-License-Identifier: LGPL-2.1-only
// What the user says is not the tree's own (--external).
#pragma once

#include <optional>
#include <string>

#include "options.hpp"

namespace criu::files {

// By its key ("tty[8801:1a]"), which a value may follow.
inline bool is_external(const Options& options, const std::string& key) {
  const auto found = options.external.lower_bound(key);
  return found != options.external.end() && found->starts_with(key) &&
         (found->size() == key.size() || (*found)[key.size()] == ':');
}

// What follows the key, if it was given.
inline std::optional<std::string> external_value(const Options& options, const std::string& key) {
  const auto found = options.external.lower_bound(key + ":");
  return found != options.external.end() && found->starts_with(key + ":") ? std::optional(found->substr(key.size() + 1))
                                                                          : std::nullopt;
}

}  // namespace criu::files
