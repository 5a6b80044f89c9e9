// SPDX-License-Identifier: LGPL-2.1-only
// System calls and failure reports for the restorer.
#pragma once

#include "restorer/plan.hpp"

namespace criu::restorer {

struct Context {
  Plan* plan;
  std::int32_t pid;

  template <typename T>
  T* at(Ref<T> ref) const {
    return reinterpret_cast<T*>(reinterpret_cast<char*>(plan) + ref.offset);
  }
};

// Tells the master what could not be done, and waits to be killed. The first report wins.
[[noreturn]] void fail(const Context& context, const char* what, long error, std::uint64_t detail = 0);

// A system call that must succeed.
template <typename... Args>
long must(const Context& context, const char* what, std::uint64_t detail, long nr, Args... args) {
  const long result = raw_syscall(nr, (long)(args)...);
  if (result < 0 && result > -4096) {
    fail(context, what, -result, detail);
  }
  return result;
}

}  // namespace criu::restorer
