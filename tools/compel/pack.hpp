// SPDX-License-Identifier: GPL-2.0-only
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace pack {

struct Relocation {
  std::uint64_t offset;
  std::int64_t addend;
};

struct Symbol {
  std::string name;
  std::uint64_t offset;
};

// What struct compel_blob says, as read from a linked program.
struct Blob {
  std::vector<unsigned char> image;
  std::uint64_t data_offset = 0;
  std::uint64_t mem_size = 0;
  std::vector<Relocation> relocations;
  std::vector<Symbol> symbols;
};

// Names what cannot be packed.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// `elf` is the whole file.
Blob read_program(const std::vector<unsigned char>& elf);

// The text of a C and C++ header that defines `static const struct compel_blob NAME`.
std::string header(const Blob& blob, const std::string& name, unsigned flags);

}  // namespace pack
