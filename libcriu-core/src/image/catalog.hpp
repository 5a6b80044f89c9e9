// SPDX-License-Identifier: LGPL-2.1-only
// The names and magics of the image files (format version 1.1 of CRIU 4.2).
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace criu::image {

// Which magic stands before the image's own one.
enum class Family : std::uint32_t { none = 0, common = 0x54564319, service = 0x55105940 };

struct Type {
  const char* id;       // as crit calls it
  const char* name;     // a fmt pattern; its one argument, if any, is the number in the file's name
  std::uint32_t magic;  // 0: raw bytes, no magic
  Family family = Family::common;
};

namespace type {
inline constexpr Type inventory{"INVENTORY", "inventory.img", 0x58313116, Family::none};
inline constexpr Type pstree{"PSTREE", "pstree.img", 0x50273030};
inline constexpr Type core{"CORE", "core-{}.img", 0x55053847};
inline constexpr Type ids{"IDS", "ids-{}.img", 0x54432030};
inline constexpr Type mm{"MM", "mm-{}.img", 0x57492820};
inline constexpr Type fs{"FS", "fs-{}.img", 0x51403912};
inline constexpr Type creds{"CREDS", "creds-{}.img", 0x54023547};
inline constexpr Type fdinfo{"FDINFO", "fdinfo-{}.img", 0x56213732};
inline constexpr Type pagemap{"PAGEMAP", "pagemap-{}.img", 0x56084025};
inline constexpr Type shmem_pagemap{"PAGEMAP", "pagemap-shmem-{}.img", 0x56084025};
inline constexpr Type pages{"PAGES", "pages-{}.img", 0, Family::none};
inline constexpr Type tmpfs_dev{"TMPFS_DEV", "tmpfs-dev-{}.tar.gz.img", 0, Family::none};
inline constexpr Type files{"FILES", "files.img", 0x56303138};
inline constexpr Type remap_fpath{"REMAP_FPATH", "remap-fpath.img", 0x59133954};
inline constexpr Type ghost_file{"GHOST_FILE", "ghost-file-{:x}.img", 0x52583605};
inline constexpr Type sk_queues{"SK_QUEUES", "sk-queues.img", 0x56264026};
inline constexpr Type pipes_data{"PIPES_DATA", "pipes-data.img", 0x56453709};
inline constexpr Type fifo_data{"FIFO_DATA", "fifo-data.img", 0x59333054};
inline constexpr Type tcp_stream{"TCP_STREAM", "tcp-stream-{:x}.img", 0x51465506};
inline constexpr Type tty_info{"TTY_INFO", "tty-info.img", 0x59453036};
inline constexpr Type tty_data{"TTY_DATA", "tty-data.img", 0x59413026};
inline constexpr Type cgroup{"CGROUP", "cgroup.img", 0x59383330};
inline constexpr Type file_locks{"FILE_LOCKS", "filelocks.img", 0x54323616};
inline constexpr Type seccomp{"SECCOMP", "seccomp.img", 0x64413049};
inline constexpr Type apparmor{"APPARMOR", "apparmor.img", 0x59423047};
inline constexpr Type memfd_inode{"MEMFD_INODE", "memfd.img", 0x48453499};
inline constexpr Type bpfmap_data{"BPFMAP_DATA", "bpfmap-data.img", 0x64324033};
inline constexpr Type utsns{"UTSNS", "utsns-{}.img", 0x54473203};
inline constexpr Type mnts{"MNTS", "mountpoints-{}.img", 0x55563928};
inline constexpr Type userns{"USERNS", "userns-{}.img", 0x55474906};
inline constexpr Type timens{"TIMENS", "timens-{}.img", 0x43114433};
inline constexpr Type pidns{"PIDNS", "pidns-{}.img", 0x61157326};
inline constexpr Type ipc_var{"IPC_VAR", "ipcns-var-{}.img", 0x53115007};
inline constexpr Type ipcns_shm{"IPCNS_SHM", "ipcns-shm-{}.img", 0x46283044};
inline constexpr Type ipcns_msg{"IPCNS_MSG", "ipcns-msg-{}.img", 0x55453737};
inline constexpr Type ipcns_sem{"IPCNS_SEM", "ipcns-sem-{}.img", 0x59573019};
inline constexpr Type netdev{"NETDEV", "netdev-{}.img", 0x57373951};
inline constexpr Type netns{"NETNS", "netns-{}.img", 0x55933752};
// What iproute2 writes, with its magics, and what other programs of the kind print.
inline constexpr Type ifaddr{"IFADDR", "ifaddr-{}.img", 0x47361222, Family::none};
inline constexpr Type route{"ROUTE", "route-{}.img", 0x45311224, Family::none};
inline constexpr Type route6{"ROUTE6", "route6-{}.img", 0x45311224, Family::none};
inline constexpr Type rule{"RULE", "rule-{}.img", 0x71706986, Family::none};
inline constexpr Type iptables{"IPTABLES", "iptables-{}.img", 0, Family::none};
inline constexpr Type ip6tables{"IP6TABLES", "ip6tables-{}.img", 0, Family::none};
inline constexpr Type nftables{"NFTABLES", "nftables-{}.img", 0, Family::none};
inline constexpr Type autofs{"AUTOFS", "autofs-{}.img", 0x49353943};
inline constexpr Type binfmt_misc{"BINFMT_MISC", "binfmt-misc.img", 0x67343323};
inline constexpr Type cpuinfo{"CPUINFO", "cpuinfo.img", 0x61404013};
inline constexpr Type stats_dump{"STATS", "stats-dump", 0x57093306, Family::service};
inline constexpr Type stats_restore{"STATS", "stats-restore", 0x57093306, Family::service};
inline constexpr Type irmap_cache{"IRMAP_CACHE", "irmap-cache", 0x57004059, Family::service};
// Beyond CRIU 4.2.
inline constexpr Type io_uring{"IO_URING", "io-uring.img", 0x55524e47};
}  // namespace type

// The file's name; a type whose pattern has no place for a number ignores it.
std::string file_name(const Type& type, std::uint64_t number = 0);

}  // namespace criu::image
