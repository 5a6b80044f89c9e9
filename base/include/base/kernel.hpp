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

inline constexpr int so_peergroups = 59;        // Linux 4.13
inline constexpr int so_buf_lock = 72;          // Linux 5.14
inline constexpr int so_rcv_mark = 75;          // Linux 5.19
inline constexpr int so_pass_pidfd = 76;        // Linux 6.5
inline constexpr int so_rcv_priority = 82;      // Linux 6.14
inline constexpr int so_pass_rights = 83;       // Linux 6.16
inline constexpr int ip_local_port_range = 51;  // Linux 6.3
inline constexpr int packet_vnet_hdr_sz = 24;   // Linux 6.4

// <linux/in6.h>, <linux/udp.h> and <linux/netlink.h> go badly with the C library's headers.
inline constexpr int ipv6_flowinfo_send = 33, ipv6_origdstaddr = 74;
inline constexpr int udp_cork = 1, udp_no_check6_tx = 101, udp_no_check6_rx = 102, udp_segment = 103, udp_gro = 104;
inline constexpr int sol_udplite = 136, udplite_send_cscov = 10, udplite_recv_cscov = 11;
inline constexpr int netlink_add_membership = 1, netlink_pktinfo = 3, netlink_broadcast_error = 4,
                     netlink_no_enobufs = 5, netlink_listen_all_nsid = 8, netlink_list_memberships = 9,
                     netlink_cap_ack = 10, netlink_ext_ack = 11, netlink_get_strict_check = 12;

inline constexpr unsigned long sock_netns = 0x894c;      // SIOCGSKNS, Linux 4.9
inline constexpr unsigned long unix_sock_file = 0x89e0;  // SIOCUNIXFILE, Linux 4.11
inline constexpr int tcp_ao_info = 40;                   // Linux 6.7; an option of TCP sockets

}  // namespace base::kernel
