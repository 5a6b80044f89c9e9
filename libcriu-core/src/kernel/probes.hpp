// SPDX-License-Identifier: LGPL-2.1-only
// The single questions to the kernel behind features and `check`. True: it is there. Why not goes to the log.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/fd.hpp"

namespace criu::kernel {

// Logs what failed with errno, and is false.
bool lacks(const char* what);

// The question asked by a child, for what would leave traces in this process.
bool in_child(bool (*question)());

// A child that stands still under ptrace; it is gone with its owner.
class Tracee {
 public:
  // `prepare` runs in the child before it stands still.
  explicit Tracee(bool (*prepare)() = nullptr);
  Tracee(const Tracee&) = delete;
  Tracee& operator=(const Tracee&) = delete;
  ~Tracee();
  pid_t pid() const { return pid_; }
  explicit operator bool() const { return stopped_; }

 private:
  pid_t pid_ = 0;
  bool stopped_ = false;
};

// The whole of a small file; empty when it cannot be read.
std::string file_text(const std::string& path);
std::string fdinfo(int fd);
bool exists(const char* path);
// In a child: a mount namespace of its own with an empty file system on /tmp.
bool private_tmp();

namespace probe {

// Memory.
bool map_files();
bool vmsplice_gift();
bool vdso_remap();
bool mem_dirty_track();
bool aio_remap();
bool uffd();
bool uffd_noncoop();
bool can_map_vdso();
bool memfd_hugetlb();
bool pagemap_scan();
bool pagemap_scan_guard_pages();
bool overlayfs_maps();

// Tasks.
bool ns_last_pid();
bool kcmp();
bool prctl_basic();
bool prctl_more();
bool proc_stat();
bool sem_next_id();
bool sigqueueinfo();
bool ptrace_signals();
bool seccomp_suspend();
bool seccomp_filters();
bool posix_timers();
bool clone_parent_and_pid();
bool loginuid();
bool userns();
bool cgroupns();
bool timens();
bool clone3_set_tid();
bool pidfd_store();
bool ns_pid();
bool timer_cr_ids();
bool get_rseq_conf();
bool breakpoints();
bool compat_cr();
bool apparmor_active();
bool apparmor_stacking();

// Files.
bool getowner_uids();
bool fdinfo_records();
bool locked_pty();
bool mnt_id();
bool timerfd();
bool fdinfo_lock();
bool kcmp_epoll();
bool autofs();
bool move_mount_set_group();
bool openat2();

// Network.
bool sock_diag();
bool peek_off();
bool tcp_basic();
bool socket_filter();
bool tcp_window();
bool tcp_half_closed();
bool sk_ns();
bool sk_unix_file();
bool net_diag_raw();
bool nsid();
bool link_nsid();
bool external_net_ns();
bool newifindex();
bool nftables();
bool network_lock_nftables();
bool has_ipt_legacy();
bool sockopt_buf_lock();
bool ipv6_freebind();
bool tun();
bool tun_or_no_driver();
bool tun_ns();

}  // namespace probe

}  // namespace criu::kernel
