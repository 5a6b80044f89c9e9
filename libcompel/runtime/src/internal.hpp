// SPDX-License-Identifier: LGPL-2.1-only
#pragma once

#include <compel/runtime_abi.h>

#include <compel/parasite.hpp>

namespace compel::rt {

// Null until a master has entered. The same for all threads of the task.
extern compel_control* control;  // NOLINT(bugprone-dynamic-static-initializers): zeros of the blob

inline std::uint32_t* life_word(compel_control* of) {
  return reinterpret_cast<std::uint32_t*>(reinterpret_cast<char*>(of) + of->life_offset);
}

}  // namespace compel::rt
