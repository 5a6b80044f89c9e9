// SPDX-License-Identifier: GPL-2.0-only
#include <elf.h>

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

#include "files/build_id.hpp"

namespace {

template <typename T>
void put(std::vector<std::byte>& to, std::size_t at, const T& value) {
  to.resize(std::max(to.size(), at + sizeof value));
  std::memcpy(to.data() + at, &value, sizeof value);
}

// An ELF file with a foreign note before the build id.
std::vector<std::byte> elf_with(const std::string& id, std::uint64_t notes_at = 256) {
  std::vector<std::byte> file;
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 2;
  put(file, 0, header);
  Elf64_Phdr segment{};
  segment.p_type = PT_LOAD;
  put(file, header.e_phoff, segment);
  segment.p_type = PT_NOTE;
  segment.p_offset = notes_at;
  segment.p_align = 4;
  const Elf64_Nhdr other{4, 5, 1}, note{4, static_cast<Elf64_Word>(id.size()), NT_GNU_BUILD_ID};
  put(file, notes_at, other);
  put(file, notes_at + sizeof other, std::array<char, 12>{'G', 'N', 'U', 0, 1, 2, 3, 4, 5});
  const auto at = notes_at + sizeof other + 12;
  put(file, at, note);
  put(file, at + sizeof note, std::array<char, 4>{'G', 'N', 'U', 0});
  for (std::size_t i = 0; i < id.size(); ++i) {
    put(file, at + sizeof note + 4 + i, id[i]);
  }
  segment.p_filesz = file.size() - notes_at;
  put(file, header.e_phoff + sizeof segment, segment);
  return file;
}

std::string found(const std::vector<std::byte>& file) {
  const auto id = criu::files::find_build_id(file);
  return {reinterpret_cast<const char*>(id.data()), id.size()};
}

}  // namespace

TEST_CASE("build id: found behind other notes, whatever its length") {
  CHECK(found(elf_with("0123456789abcdefghij")) == "0123456789abcdefghij");
  CHECK(found(elf_with("xyz")) == "xyz");
  CHECK(found(elf_with("0123456789", 70000)) == "0123456789");
}

TEST_CASE("build id: nothing in what is no ELF file, cut short or full of lies") {
  CHECK(found({}).empty());
  CHECK(found(std::vector<std::byte>(64)).empty());
  const auto whole = elf_with("0123456789abcdefghij");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    CHECK(found({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}).empty());
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int value : {0, 0x7f, 0xff}) {
      auto broken = whole;
      broken[at] = static_cast<std::byte>(value);
      found(broken);  // no crash
    }
  }
}
