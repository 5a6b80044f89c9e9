// SPDX-License-Identifier: LGPL-2.1-only
#include "files/build_id.hpp"

#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace criu::files {

namespace {

// Every linker puts the note near the beginning; most files need the first page only.
constexpr std::size_t first_look = 4096;
constexpr std::size_t last_look = 1 << 20;
constexpr std::size_t longest_id = 512;

using Bytes = std::span<const std::byte>;

template <typename T>
bool get(Bytes bytes, std::uint64_t at, T& value) {
  if (at > bytes.size() || bytes.size() - at < sizeof value) {
    return false;
  }
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return true;
}

Bytes part(Bytes bytes, std::uint64_t at, std::uint64_t size) {
  if (at > bytes.size() || size > bytes.size() - at) {
    return {};
  }
  return bytes.subspan(at, size);
}

// Notes are padded to 4 bytes in all segments that linkers emit for this one, to 8 in some others.
Bytes find_in_notes(Bytes notes, std::uint64_t align) {
  const auto pad = [&](std::uint64_t size) { return (size + align - 1) / align * align; };
  Elf64_Nhdr note{};
  for (std::uint64_t at = 0; get(notes, at, note);) {
    const auto name = part(notes, at + sizeof note, note.n_namesz);
    const auto id_at = at + pad(sizeof note + note.n_namesz);
    if (note.n_type == NT_GNU_BUILD_ID && name.size() == 4 && std::memcmp(name.data(), "GNU", 4) == 0) {
      const auto id = part(notes, id_at, note.n_descsz);
      return id.size() <= longest_id ? id : Bytes{};
    }
    at = id_at + pad(note.n_descsz);
  }
  return {};
}

template <typename Header, typename Segment>
Bytes find_in_elf(Bytes head, std::uint64_t* wanted) {
  Header header{};
  if (!get(head, 0, header) || header.e_phentsize < sizeof(Segment)) {
    return {};
  }
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Segment segment{};
    const auto at = header.e_phoff + std::uint64_t{i} * header.e_phentsize;
    if (at < header.e_phoff || !get(head, at, segment)) {
      *wanted = at + sizeof segment;
      return {};
    }
    if (segment.p_type != PT_NOTE) {
      continue;
    }
    if (segment.p_offset + segment.p_filesz > head.size()) {
      *wanted = std::max<std::uint64_t>(*wanted, segment.p_offset + segment.p_filesz);
    }
    if (const auto id = find_in_notes(part(head, segment.p_offset, segment.p_filesz), segment.p_align == 8 ? 8 : 4);
        !id.empty()) {
      return id;
    }
  }
  return {};
}

// `wanted`: how much of the file would have to be seen.
Bytes find(Bytes head, std::uint64_t* wanted) {
  unsigned char ident[EI_NIDENT];
  if (!get(head, 0, ident) || std::memcmp(ident, ELFMAG, SELFMAG) != 0 || ident[EI_DATA] != ELFDATA2LSB) {
    return {};
  }
  if (ident[EI_CLASS] == ELFCLASS64) {
    return find_in_elf<Elf64_Ehdr, Elf64_Phdr>(head, wanted);
  }
  return ident[EI_CLASS] == ELFCLASS32 ? find_in_elf<Elf32_Ehdr, Elf32_Phdr>(head, wanted) : Bytes{};
}

}  // namespace

std::span<const std::byte> find_build_id(std::span<const std::byte> head) {
  std::uint64_t wanted = 0;
  return find(head, &wanted);
}

std::vector<std::uint32_t> read_build_id(int fd) {
  std::vector<std::byte> head(first_look);
  Bytes id;
  for (;;) {
    const auto got = ::pread(fd, head.data(), head.size(), 0);
    if (got <= 0) {
      return {};
    }
    std::uint64_t wanted = 0;
    id = find(Bytes(head).first(static_cast<std::size_t>(got)), &wanted);
    if (!id.empty() || wanted <= static_cast<std::uint64_t>(got) || head.size() >= last_look ||
        static_cast<std::size_t>(got) < head.size()) {
      break;
    }
    head.resize(last_look);
  }
  std::vector<std::uint32_t> words((id.size() + 3) / 4);
  if (!id.empty()) {
    std::memcpy(words.data(), id.data(), id.size());
  }
  return words;
}

}  // namespace criu::files
