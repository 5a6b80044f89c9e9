// SPDX-License-Identifier: GPL-2.0-only
#include "pack.hpp"

#include <elf.h>

#include <algorithm>
#include <cstring>

namespace pack {
namespace {

constexpr std::uint64_t page = 4096;

class Program {
 public:
  explicit Program(const std::vector<unsigned char>& bytes) : bytes_(bytes) {
    header_ = at<Elf64_Ehdr>(0);
    if (std::memcmp(header_.e_ident, ELFMAG, SELFMAG) != 0 || header_.e_ident[EI_CLASS] != ELFCLASS64 ||
        header_.e_machine != EM_X86_64) {
      throw Refused("not a 64-bit ELF file for x86-64");
    }
    if (header_.e_type != ET_DYN) {
      throw Refused("not linked position-independent: use the flags of `compel ldflags`");
    }
    const auto names = section(header_.e_shstrndx);
    for (unsigned i = 0; i < header_.e_shnum; ++i) {
      sections_.push_back(section(i));
      section_names_.push_back(text(names, sections_.back().sh_name));
    }
  }

  template <typename T>
  T at(std::uint64_t offset) const {
    if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T)) {
      throw Refused("the file is cut short");
    }
    T value;
    std::memcpy(&value, bytes_.data() + offset, sizeof value);
    return value;
  }

  std::string text(const Elf64_Shdr& strings, std::uint64_t offset) const {
    if (strings.sh_offset > bytes_.size() || strings.sh_size > bytes_.size() - strings.sh_offset ||
        offset >= strings.sh_size) {
      throw Refused("a name lies outside of its string table");
    }
    const char* begin = reinterpret_cast<const char*>(bytes_.data()) + strings.sh_offset + offset;
    return std::string(begin, strnlen(begin, strings.sh_size - offset));
  }

  const std::vector<unsigned char>& bytes() const { return bytes_; }
  const std::vector<Elf64_Shdr>& sections() const { return sections_; }
  const std::string& section_name(std::size_t index) const { return section_names_.at(index); }
  const Elf64_Shdr& linked(const Elf64_Shdr& of) const { return sections_.at(of.sh_link); }

  template <typename T, typename Visit>
  void each(const Elf64_Shdr& table, Visit visit) const {
    for (std::uint64_t i = 0; i < table.sh_size / sizeof(T); ++i) {
      visit(at<T>(table.sh_offset + i * sizeof(T)));
    }
  }

 private:
  Elf64_Shdr section(unsigned index) const {
    return at<Elf64_Shdr>(header_.e_shoff + std::uint64_t{index} * sizeof(Elf64_Shdr));
  }

  const std::vector<unsigned char>& bytes_;
  Elf64_Ehdr header_;
  std::vector<Elf64_Shdr> sections_;
  std::vector<std::string> section_names_;
};

std::string relocation_name(std::uint64_t type) {
  switch (type) {
    case R_X86_64_64:
      return "R_X86_64_64";
    case R_X86_64_PC32:
      return "R_X86_64_PC32";
    case R_X86_64_COPY:
      return "R_X86_64_COPY";
    case R_X86_64_GLOB_DAT:
      return "R_X86_64_GLOB_DAT";
    case R_X86_64_JUMP_SLOT:
      return "R_X86_64_JUMP_SLOT";
    case R_X86_64_DTPMOD64:
      return "R_X86_64_DTPMOD64";
    case R_X86_64_DTPOFF64:
      return "R_X86_64_DTPOFF64";
    case R_X86_64_TPOFF64:
      return "R_X86_64_TPOFF64";
    case R_X86_64_IRELATIVE:
      return "R_X86_64_IRELATIVE";
    default:
      return "of type " + std::to_string(type);
  }
}

// Things that need somebody to run or set up something before the first entry: nobody does in a blob.
void refuse_startup_code(const Program& program) {
  for (std::size_t i = 0; i < program.sections().size(); ++i) {
    const Elf64_Shdr& section = program.sections()[i];
    if (section.sh_size == 0) {
      continue;
    }
    const std::string& name = program.section_name(i);
    if (section.sh_type == SHT_INIT_ARRAY || section.sh_type == SHT_PREINIT_ARRAY ||
        name.rfind(".init_array", 0) == 0 || name.rfind(".ctors", 0) == 0) {
      throw Refused("section " + name + ": static constructors would never run");
    }
    if ((section.sh_flags & SHF_TLS) != 0) {
      throw Refused("section " + name + ": thread-local variables would be those of the task");
    }
  }
}

void read_image(const Program& program, Blob& blob) {
  std::uint64_t begin = 0, end = 0;
  bool marked = false;
  for (const Elf64_Shdr& table : program.sections()) {
    if (table.sh_type != SHT_SYMTAB) {
      continue;
    }
    program.each<Elf64_Sym>(table, [&](const Elf64_Sym& symbol) {
      const std::string name = program.text(program.linked(table), symbol.st_name);
      if (name == "compel_data_begin") {
        begin = symbol.st_value;
        marked = true;
      } else if (name == "compel_data_end") {
        end = symbol.st_value;
      } else if (symbol.st_shndx == SHN_UNDEF && !name.empty()) {
        throw Refused("undefined symbol " + name);
      } else if (ELF64_ST_BIND(symbol.st_info) == STB_GLOBAL && symbol.st_shndx < SHN_LORESERVE &&
                 ELF64_ST_VISIBILITY(symbol.st_other) == STV_DEFAULT && name != "_GLOBAL_OFFSET_TABLE_" &&
                 name != "_DYNAMIC") {
        blob.symbols.push_back({name, symbol.st_value});
      }
    });
  }
  if (!marked || begin % page != 0 || end < begin) {
    throw Refused("no compel_data_begin and compel_data_end on page boundaries: link with blob.lds");
  }
  blob.data_offset = begin;
  blob.mem_size = std::max(end, begin);
  for (std::size_t i = 0; i < program.sections().size(); ++i) {
    const Elf64_Shdr& section = program.sections()[i];
    if ((section.sh_flags & SHF_ALLOC) == 0 || section.sh_size == 0) {
      continue;
    }
    const std::uint64_t last = section.sh_addr + section.sh_size;
    if (((section.sh_flags & SHF_EXECINSTR) != 0 && last > begin) || last > end ||
        (last > begin && section.sh_addr < begin)) {
      throw Refused("section " + program.section_name(i) + " lies on the wrong side of compel_data_begin");
    }
    if (section.sh_type == SHT_NOBITS) {
      continue;
    }
    if (blob.image.size() < last) {
      blob.image.resize(last);
    }
    if (section.sh_offset > program.bytes().size() || section.sh_size > program.bytes().size() - section.sh_offset) {
      throw Refused("the file is cut short");
    }
    std::memcpy(blob.image.data() + section.sh_addr, program.bytes().data() + section.sh_offset, section.sh_size);
  }
}

void read_relocations(const Program& program, Blob& blob) {
  for (std::size_t i = 0; i < program.sections().size(); ++i) {
    const Elf64_Shdr& table = program.sections()[i];
    if (table.sh_type == SHT_REL && table.sh_size != 0) {
      throw Refused("section " + program.section_name(i) + ": relocations without addends");
    }
    if (table.sh_type != SHT_RELA || (table.sh_flags & SHF_ALLOC) == 0) {
      continue;
    }
    program.each<Elf64_Rela>(table, [&](const Elf64_Rela& entry) {
      if (ELF64_R_TYPE(entry.r_info) != R_X86_64_RELATIVE) {
        throw Refused("relocation " + relocation_name(ELF64_R_TYPE(entry.r_info)) + " at offset " +
                      std::to_string(entry.r_offset) + ": only R_X86_64_RELATIVE can be placed without a linker");
      }
      if (entry.r_offset + 8 > blob.image.size()) {
        throw Refused("a relocation lies outside of the image");
      }
      blob.relocations.push_back({entry.r_offset, entry.r_addend});
    });
  }
}

}  // namespace

Blob read_program(const std::vector<unsigned char>& elf) {
  const Program program(elf);
  refuse_startup_code(program);
  Blob blob;
  read_image(program, blob);
  read_relocations(program, blob);
  std::sort(blob.symbols.begin(), blob.symbols.end(), [](const Symbol& a, const Symbol& b) { return a.name < b.name; });
  return blob;
}

std::string header(const Blob& blob, const std::string& name, unsigned flags) {
  std::string out = "/* Made by `compel pack`. */\n#pragma once\n#include <compel/blob.h>\n\n";
  const auto number = [](auto value) { return std::to_string(value); };
  out += "static const uint8_t " + name + "_image[] = {";
  for (std::size_t i = 0; i < blob.image.size(); ++i) {
    out += (i % 24 == 0 ? "\n" : "") + number(blob.image[i]) + ",";
  }
  out += "\n};\n";
  if (!blob.relocations.empty()) {
    out += "static const struct compel_relocation " + name + "_relocations[] = {\n";
    for (const Relocation& entry : blob.relocations) {
      out += "  {" + number(entry.offset) + ", " + number(entry.addend) + "},\n";
    }
    out += "};\n";
  }
  if (!blob.symbols.empty()) {
    out += "static const struct compel_symbol " + name + "_symbols[] = {\n";
    for (const Symbol& symbol : blob.symbols) {
      out += "  {\"" + symbol.name + "\", " + number(symbol.offset) + "},\n";
    }
    out += "};\n";
  }
  out += "static const struct compel_blob " + name + " = {\n  COMPEL_BLOB_ABI, " + number(flags) + ", " + name +
         "_image, " + number(blob.image.size()) + ", " + number(blob.data_offset) + ", " + number(blob.mem_size) +
         ",\n  " + (blob.relocations.empty() ? "0" : name + "_relocations") + ", " + number(blob.relocations.size()) +
         ",\n  " + (blob.symbols.empty() ? "0" : name + "_symbols") + ", " + number(blob.symbols.size()) + ",\n};\n";
  return out;
}

}  // namespace pack
