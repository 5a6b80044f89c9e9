// SPDX-License-Identifier: LGPL-2.1-only
// The kernel's code in every address space, and the data pages before it.
//
// A task may hold addresses inside its vDSO (its C library caches them), so what is at these addresses must work after
// a restore. When this kernel's vDSO has its functions at the same places as the saved one, it is moved to where that
// was. Otherwise the saved code is restored as ordinary memory, and each of its functions jumps into this kernel's
// vDSO, which is mapped elsewhere and carries a mark by which a later dump knows it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "memory/areas.hpp"
#include "restorer/plan.hpp"

namespace criu {
struct TaskImage;
}

namespace criu::memory {

class Pagemap;

// This process's vDSO and its data pages, ascending; all of them are next to each other.
struct OwnVdso {
  std::vector<Interval> data;  // [vvar], and since 6.13 [vvar_vclock]
  Interval code{0, 0};

  bool exists() const { return code.end != 0; }
  std::uint64_t start() const { return data.empty() ? code.start : data.front().start; }
  std::uint64_t size() const { return exists() ? code.end - start() : 0; }
  std::uint64_t data_size() const { return code.start - start(); }
};
OwnVdso own_vdso();

// The functions of a vDSO that programs call, by their place in the image; 0: it has no such function. The image is
// untrusted. The order is __vdso_clock_gettime, __vdso_getcpu, __vdso_gettimeofday, __vdso_time, __vdso_clock_getres.
constexpr std::size_t vdso_functions = 5;
struct VdsoTable {
  std::uint64_t offset[vdso_functions] = {};
  bool operator==(const VdsoTable&) const = default;
};
VdsoTable parse_vdso(std::span<const std::byte> image);

// What is to be done for one task.
struct VdsoPlan {
  const images::vma_entry* code = nullptr;  // of the task; nullptr: it had none
  const images::vma_entry* data = nullptr;
  bool proxy = false;  // the saved code stays and jumps into ours
  VdsoTable saved;
};
VdsoPlan plan_vdso(const OwnVdso&, const TaskImage&, const Pagemap&);

// Where this kernel's vDSO goes when the saved one could be replaced by it.
std::uint64_t vdso_home(const OwnVdso&, const VdsoPlan&);
// The moves that take it there, by way of a parking place.
std::vector<restorer::Part> move_vdso(const OwnVdso&, std::uint64_t parking, std::uint64_t home);
// Lets the functions of the saved code, which lies at `bytes`, jump to those of ours when that is at `home`.
void redirect_vdso(std::span<std::byte> bytes, const VdsoPlan&, const OwnVdso&, std::uint64_t home);

// The mark over the head of a vDSO that others are redirected to: signature, place of the redirected code, version,
// place of its data, place of the data of the marked one.
struct VdsoMark {
  std::uint64_t words[5];

  bool valid() const;
  std::uint64_t redirected() const { return words[1]; }
};
VdsoMark vdso_mark(const OwnVdso&, const VdsoPlan&, std::uint64_t home);

}  // namespace criu::memory
