// SPDX-License-Identifier: LGPL-2.1-only
// AMX tiles. For freestanding code too.
#pragma once

namespace arch {

constexpr unsigned tile_data_component = 18;  // of XSAVE

// The kernel makes room for the tiles of a thread when the thread first uses one, and takes no state for them before.
// To be called with the process's permission (ARCH_REQ_XCOMP_PERM).
__attribute__((target("amx-tile"))) inline void use_tiles() {
  // The shapes of the tiles: a byte for the palette, at 16 the bytes of a row of each, at 48 the rows of each.
  alignas(64) unsigned long shapes[8] = {};
  shapes[0] = 1;
  shapes[2] = 4;
  shapes[6] = 1;
  asm volatile(
      "ldtilecfg %0\n"
      "tilezero %%tmm0\n"
      "tilerelease\n"
      :
      : "m"(shapes)
      : "memory");
}

}  // namespace arch
