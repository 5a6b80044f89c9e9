// SPDX-License-Identifier: LGPL-2.1-only
// The GNU build id of an ELF file: tells whether a program or library is still the one that was dumped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace criu::files {

// From the first part of a file; empty: no ELF file of this machine, or it has no build id there.
std::span<const std::byte> find_build_id(std::span<const std::byte> head);

// Of an open file, as images have it: words in native order, zero padded. Files that cannot be read have none.
std::vector<std::uint32_t> read_build_id(int fd);

}  // namespace criu::files
