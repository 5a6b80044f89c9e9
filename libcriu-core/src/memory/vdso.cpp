// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/vdso.hpp"

#include <elf.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "memory/pages.hpp"
#include "task/checkpoint.hpp"

namespace criu::memory {

using base::Error;

namespace {

constexpr const char* function_names[vdso_functions] = {"__vdso_clock_gettime", "__vdso_getcpu", "__vdso_gettimeofday",
                                                        "__vdso_time", "__vdso_clock_getres"};
// A jump to any address that keeps the argument registers: movabs $target, %rax; jmp *%rax
constexpr std::size_t jump_size = 12;
constexpr std::uint64_t largest_vdso = 1 << 20;
constexpr std::uint64_t mark_signature = 0x4f53447655495243;  // "CRIUvDSO"
constexpr std::uint64_t mark_version = 3;
constexpr std::uint64_t nowhere = ~std::uint64_t{0};

// An object inside an untrusted image.
template <typename T>
bool load(std::span<const std::byte> image, std::uint64_t at, T& value) {
  if (at > image.size() || image.size() - at < sizeof value) {
    return false;
  }
  std::memcpy(&value, image.data() + at, sizeof value);
  return true;
}

struct DynamicTables {
  std::uint64_t symbols = 0, strings = 0, strings_size = 0, hash = 0;
};

DynamicTables dynamic_tables(std::span<const std::byte> image, std::uint64_t& bias) {
  DynamicTables tables;
  Elf64_Ehdr head;
  if (!load(image, 0, head) || std::memcmp(head.e_ident, ELFMAG, SELFMAG) != 0) {
    return tables;
  }
  std::uint64_t dynamic_at = 0, dynamic_size = 0;
  for (unsigned i = 0; i < head.e_phnum; ++i) {
    Elf64_Phdr part;
    if (!load(image, head.e_phoff + i * sizeof part, part)) {
      return tables;
    }
    if (part.p_type == PT_LOAD) {
      bias = part.p_vaddr - part.p_offset;
    } else if (part.p_type == PT_DYNAMIC) {
      dynamic_at = part.p_offset;
      dynamic_size = std::min<std::uint64_t>(part.p_filesz, image.size());
    }
  }
  for (std::uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic_size; at += sizeof(Elf64_Dyn)) {
    Elf64_Dyn entry;
    if (!load(image, dynamic_at + at, entry) || entry.d_tag == DT_NULL) {
      break;
    }
    const auto value = entry.d_un.d_ptr;
    if (entry.d_tag == DT_SYMTAB) {
      tables.symbols = value - bias;
    } else if (entry.d_tag == DT_STRTAB) {
      tables.strings = value - bias;
    } else if (entry.d_tag == DT_STRSZ) {
      tables.strings_size = value;
    }
  }
  return tables;
}

std::string_view string_at(std::span<const std::byte> image, const DynamicTables& tables, std::uint64_t offset) {
  if (offset >= tables.strings_size || tables.strings > image.size() || image.size() - tables.strings <= offset) {
    return {};
  }
  const auto* text = reinterpret_cast<const char*>(image.data() + tables.strings + offset);
  return {text, ::strnlen(text, std::min<std::size_t>(image.size() - tables.strings - offset, 64))};
}

std::vector<std::byte> saved_code(const images::vma_entry& vma, const Pagemap& pagemap, const TaskImage& task) {
  const auto size = vma.end() - vma.start();
  if (size > largest_vdso) {
    throw Error("corrupt checkpoint", fmt::format("the vDSO of {} has {} bytes", task.name(), size), 0);
  }
  std::vector<std::byte> code(size);
  for (const auto& run : pagemap.runs()) {
    const auto start = std::max(run.start, vma.start());
    const auto end = std::min(run.start + run.size, vma.end());
    if (start < end) {
      base::check(::pread(pagemap.fd(run), code.data() + (start - vma.start()), end - start,
                          static_cast<off_t>(run.offset + (start - run.start))),
                  "read the saved vDSO of", task.name());
    }
  }
  return code;
}

// A test hook that CRIU has too: behave as if no vDSO were usable.
bool forced_proxy() {
  const char* fault = std::getenv("CRIU_FAULT");
  return fault != nullptr && std::strcmp(fault, "127") == 0;
}

}  // namespace

OwnVdso own_vdso() {
  OwnVdso own;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const bool data = line.find("[vvar") != std::string::npos;
    if (!data && line.find("[vdso]") == std::string::npos) {
      continue;
    }
    char* at = nullptr;
    const auto start = std::strtoull(line.c_str(), &at, 16);
    const Interval range{start, std::strtoull(at + 1, nullptr, 16)};
    if (data) {
      own.data.push_back(range);
    } else {
      own.code = range;
    }
  }
  return own;
}

VdsoTable parse_vdso(std::span<const std::byte> image) {
  VdsoTable table;
  std::uint64_t bias = 0;
  const auto tables = dynamic_tables(image, bias);
  // The strings come right behind the symbols, as linkers lay them out; nothing else tells the number of symbols
  // without a walk through the hash table.
  for (auto at = tables.symbols; tables.symbols != 0 && at < tables.strings; at += sizeof(Elf64_Sym)) {
    Elf64_Sym symbol;
    if (!load(image, at, symbol)) {
      break;
    }
    const auto name = string_at(image, tables, symbol.st_name);
    for (std::size_t i = 0; i < vdso_functions; ++i) {
      const auto offset = symbol.st_value - bias;
      if (symbol.st_shndx != SHN_UNDEF && name == function_names[i] && offset < image.size() &&
          image.size() - offset >= jump_size) {
        table.offset[i] = offset;
      }
    }
  }
  return table;
}

VdsoPlan plan_vdso(const OwnVdso& own, const TaskImage& task, const Pagemap& pagemap) {
  VdsoPlan plan;
  for (const auto& vma : task.mm.vmas()) {
    if ((vma.status() & vdso) != 0) {
      plan.code = &vma;
    } else if ((vma.status() & vvar) != 0) {
      plan.data = &vma;
    }
  }
  if (plan.code == nullptr) {
    return plan;
  }
  plan.saved = parse_vdso(saved_code(*plan.code, pagemap, task));
  const auto own_table =
      own.exists()
          ? parse_vdso({reinterpret_cast<const std::byte*>(own.code.start), own.code.end - own.code.start})  // NOLINT
          : VdsoTable{};
  const auto saved_data = plan.data == nullptr ? 0 : plan.data->end() - plan.data->start();
  const bool same_order = plan.data == nullptr || plan.data->end() == plan.code->start();
  plan.proxy = forced_proxy() || !own.exists() ||
               own.code.end - own.code.start != plan.code->end() - plan.code->start() ||
               own.data_size() != saved_data || !same_order || own_table != plan.saved;
  if (plan.proxy && !own.exists()) {
    throw Error("cannot restore", task.name() + " uses the vDSO", 0, "this kernel runs without one");
  }
  return plan;
}

std::uint64_t vdso_home(const OwnVdso& own, const VdsoPlan& plan) { return plan.code->start() - own.data_size(); }

std::vector<restorer::Part> move_vdso(const OwnVdso& own, std::uint64_t parking, std::uint64_t home) {
  std::vector<restorer::Part> parts;
  const auto add = [&](const Interval& range) {
    const auto offset = range.start - own.start();
    parts.push_back({range.start, range.end - range.start, parking + offset, home + offset});
  };
  for (const auto& range : own.data) {
    add(range);
  }
  add(own.code);
  return parts;
}

void redirect_vdso(std::span<std::byte> bytes, const VdsoPlan& plan, const OwnVdso& own, std::uint64_t home) {
  const auto ours =
      parse_vdso({reinterpret_cast<const std::byte*>(own.code.start), own.code.end - own.code.start});  // NOLINT
  const auto code_home = home + own.data_size();
  for (std::size_t i = 0; i < vdso_functions; ++i) {
    if (plan.saved.offset[i] == 0) {
      continue;
    }
    if (ours.offset[i] == 0) {
      throw Error("cannot restore", fmt::format("this kernel's vDSO has no {}", function_names[i]), 0,
                  "restore on a newer kernel");
    }
    auto* at = bytes.data() + plan.saved.offset[i];
    const std::uint64_t target = code_home + ours.offset[i];
    const unsigned char head[] = {0x48, 0xb8}, tail[] = {0xff, 0xe0};
    std::memcpy(at, head, sizeof head);
    std::memcpy(at + 2, &target, sizeof target);
    std::memcpy(at + 10, tail, sizeof tail);
  }
}

bool VdsoMark::valid() const { return words[0] == mark_signature && words[2] == mark_version; }

VdsoMark vdso_mark(const OwnVdso& own, const VdsoPlan& plan, std::uint64_t home) {
  return {{mark_signature, plan.code->start(), mark_version, plan.data == nullptr ? nowhere : plan.data->start(),
           own.data.empty() ? nowhere : home}};
}

}  // namespace criu::memory
