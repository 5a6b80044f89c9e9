// SPDX-License-Identifier: LGPL-2.1-only
// From exceptions inside the library to numbers and texts outside.
#pragma once

#include <base/error.hpp>
#include <exception>
#include <utility>

namespace compel {

// The task died under our hands. Often no failure at all: who freezes a tree goes on without it.
class Gone : public base::Error {
 public:
  using base::Error::Error;
};

// Remembers the failure in flight as the calling thread's last one. Returns the negative errno for it. To be called in
// a catch block.
int remember_failure() noexcept;

// Runs what a C function is made of.
template <typename Body>
auto guarded(Body body) noexcept -> decltype(body()) {
  try {
    return body();
  } catch (...) {
    return remember_failure();
  }
}

}  // namespace compel
