// SPDX-License-Identifier: LGPL-2.1-only
#include "kernel/features.hpp"

#include <array>
#include <atomic>

#include "kernel/probes.hpp"

namespace criu::kernel {

namespace {

using enum Wanted;

constexpr Feature table[] = {
    {"seccomp_suspend", extra, probe::seccomp_suspend},
    {"seccomp_filters", extra, probe::seccomp_filters},
    {"mem_dirty_track", extra, probe::mem_dirty_track},
    // A kernel without the driver has no such devices to save, so --extra asks in its own way.
    {"tun", on_request, probe::tun},
    {"tun_ns", on_request, probe::tun_ns},
    {"timerfd", extra, probe::timerfd},
    {"mnt_id", extra, probe::mnt_id},
    {"aio_remap", extra, probe::aio_remap},
    {"fdinfo_lock", extra, probe::fdinfo_lock},
    {"cgroupns", extra, probe::cgroupns},
    {"tcp_half_closed", extra, probe::tcp_half_closed},
    {"userns", extra, probe::userns},
    {"loginuid", extra, probe::loginuid},
    {"can_map_vdso", extra, probe::can_map_vdso},
    {"uffd", extra, probe::uffd},
    {"uffd-noncoop", extra, probe::uffd_noncoop},
    {"sk_ns", extra, probe::sk_ns},
    {"sk_unix_file", on_request, probe::sk_unix_file},
    {"kcmp_epoll", extra, probe::kcmp_epoll},
    {"net_diag_raw", extra, probe::net_diag_raw},
    {"nsid", on_request, probe::nsid},
    {"link_nsid", on_request, probe::link_nsid},
    {"clone3_set_tid", extra, probe::clone3_set_tid},
    {"timens", extra, probe::timens},
    {"external_net_ns", on_request, probe::external_net_ns},
    {"newifindex", extra, probe::newifindex},
    {"pidfd_store", extra, probe::pidfd_store},
    {"ns_pid", extra, probe::ns_pid},
    {"nftables", on_request, probe::nftables},
    {"has_ipt_legacy", on_request, probe::has_ipt_legacy},
    {"network_lock_nftables", extra, probe::network_lock_nftables},
    {"sockopt_buf_lock", extra, probe::sockopt_buf_lock},
    {"memfd_hugetlb", extra, probe::memfd_hugetlb},
    {"move_mount_set_group", extra, probe::move_mount_set_group},
    {"openat2", extra, probe::openat2},
    {"get_rseq_conf", extra, probe::get_rseq_conf},
    {"ipv6_freebind", extra, probe::ipv6_freebind},
    {"pagemap_scan", extra, probe::pagemap_scan},
    {"overlayfs_maps", extra, probe::overlayfs_maps},
    {"timer_cr_ids", extra, probe::timer_cr_ids},
    {"pagemap_scan_guard_pages", extra, probe::pagemap_scan_guard_pages},
    {"apparmor_stacking", on_request, probe::apparmor_stacking},
    {"autofs", experimental, probe::autofs},
    {"compat_cr", experimental, probe::compat_cr},
    {"breakpoints", informative, probe::breakpoints},
};

enum class Known : unsigned char { no_idea, there, absent };
std::array<std::atomic<Known>, std::size(table)> answers;

}  // namespace

bool Feature::supported() const {
  // Two threads may ask at once; they get the same answer.
  auto& answer = answers[static_cast<std::size_t>(this - table)];
  if (answer == Known::no_idea) {
    answer = probe() ? Known::there : Known::absent;
  }
  return answer == Known::there;
}

std::span<const Feature> features() { return table; }

const Feature* find_feature(std::string_view name) {
  for (const auto& feature : table) {
    if (name == feature.name) {
      return &feature;
    }
  }
  return nullptr;
}

bool supported(std::string_view name) {
  const auto* feature = find_feature(name);
  return feature != nullptr && feature->supported();
}

}  // namespace criu::kernel
