// SPDX-License-Identifier: LGPL-2.1-only
// Kernel interfaces that the headers of Debian 12 (Linux 6.1) lack, or that cannot be included together with the C
// library's. Our own names, so that no order of includes matters; each with the version that brought it. Sorted by
// room, then by version: add at the end of a room.
#pragma once

#include <cstdint>

namespace base::kernel {

// ---- tasks ----------------------------------------------------------------------------------------------------------

inline constexpr int pr_timer_create_restore_ids = 77;  // Linux 6.15; argument: 0 off, 1 on, 2 ask
inline constexpr int pr_timer_create_restore_ids_get = 2;

// ---- memory ---------------------------------------------------------------------------------------------------------

inline constexpr int uffd_user_mode_only = 1;  // Linux 5.11

// PAGEMAP_SCAN, an ioctl of /proc/PID/pagemap: Linux 6.7.
struct PagemapScan {
  std::uint64_t size = sizeof(PagemapScan);
  std::uint64_t flags = 0;
  std::uint64_t start = 0;
  std::uint64_t end = 0;
  std::uint64_t walk_end = 0;
  std::uint64_t vec = 0;
  std::uint64_t vec_len = 0;
  std::uint64_t max_pages = 0;
  std::uint64_t category_inverted = 0;
  std::uint64_t category_mask = 0;
  std::uint64_t category_anyof_mask = 0;
  std::uint64_t return_mask = 0;
};
static_assert(sizeof(PagemapScan) == 96);

struct PageRegion {
  std::uint64_t start, end, categories;
};

inline constexpr unsigned long pagemap_scan = 0xc0606610;
inline constexpr std::uint64_t page_is_present = 8;
inline constexpr std::uint64_t page_is_guard = 256;  // Linux 6.16

inline constexpr int madv_guard_install = 102;  // Linux 6.13
inline constexpr int madv_guard_remove = 103;   // Linux 6.13

// ---- files and mounts -----------------------------------------------------------------------------------------------

inline constexpr unsigned move_mount_set_group = 0x100;  // Linux 5.15

// ---- sockets --------------------------------------------------------------------------------------------------------

inline constexpr int tcp_ao_info = 40;  // Linux 6.7; an option of TCP sockets

}  // namespace base::kernel
