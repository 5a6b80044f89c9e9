// SPDX-License-Identifier: LGPL-2.1-only
#include "memory/vdso.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "base/error.hpp"
#include "task/checkpoint.hpp"

namespace criu::memory {

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

std::vector<restorer::Part> plan_vdso(const OwnVdso& own, const TaskImage& task, std::uint64_t parking) {
  const images::vma_entry* code = nullptr;
  const images::vma_entry* data = nullptr;
  for (const auto& vma : task.mm.vmas()) {
    if ((vma.status() & vdso) != 0) {
      code = &vma;
    } else if ((vma.status() & vvar) != 0) {
      data = &vma;
    }
  }
  if (code == nullptr) {
    return {};
  }
  const auto data_size = own.data.empty() ? 0 : own.data.back().end - own.data.front().start;
  const auto saved_data = data == nullptr ? 0 : data->end() - data->start();
  const bool before = data == nullptr || data->end() == code->start();
  if (own.code.end - own.code.start != code->end() - code->start() || data_size != saved_data || !before) {
    throw base::Error("not supported by this version",
                      fmt::format("{} was dumped on a kernel with another vDSO", task.name()), 0);
  }
  std::vector<restorer::Part> parts;
  const auto from = own.data.empty() ? own.code.start : own.data.front().start;
  const auto to = code->start() - data_size;
  const auto add = [&](const Interval& range) {
    const auto offset = range.start - from;
    parts.push_back({range.start, range.end - range.start, parking + offset, to + offset});
  };
  for (const auto& range : own.data) {
    add(range);
  }
  add(own.code);
  return parts;
}

}  // namespace criu::memory
