// SPDX-License-Identifier: LGPL-2.1-only
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "files/kind.hpp"
#include "image/directory.hpp"

namespace criu::files {

extern const Kind bpf_map_kind;

// What is in the maps of a checkpoint, by their numbers in it.
struct BpfContents {
  std::uint32_t count = 0;
  std::string keys, values;
};
using BpfMaps = std::map<std::uint32_t, BpfContents>;
BpfMaps read_bpf_maps(const image::Directory&);

}  // namespace criu::files
