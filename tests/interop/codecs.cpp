// SPDX-License-Identifier: GPL-2.0-only
#include "codecs.hpp"

#include <apparmor.pb.h>
#include <autofs.pb.h>
#include <binfmt-misc.pb.h>
#include <bpfmap-data.pb.h>
#include <cgroup.pb.h>
#include <core.pb.h>
#include <cpuinfo.pb.h>
#include <creds.pb.h>
#include <fdinfo.pb.h>
#include <fh.pb.h>
#include <file-lock.pb.h>
#include <fs.pb.h>
#include <ghost-file.pb.h>
#include <inventory.pb.h>
#include <ipc-msg.pb.h>
#include <ipc-sem.pb.h>
#include <ipc-shm.pb.h>
#include <ipc-var.pb.h>
#include <memfd.pb.h>
#include <mm.pb.h>
#include <mnt.pb.h>
#include <netdev.pb.h>
#include <pagemap.pb.h>
#include <pidns.pb.h>
#include <pipe-data.pb.h>
#include <pstree.pb.h>
#include <remap-file-path.pb.h>
#include <seccomp.pb.h>
#include <sk-packet.pb.h>
#include <stats.pb.h>
#include <tcp-stream.pb.h>
#include <timens.pb.h>
#include <tty.pb.h>
#include <userns.pb.h>
#include <utsns.pb.h>

#include <algorithm>
#include <cstdint>
#include <regex>
#include <stdexcept>
#include <vector>

namespace interop {

namespace {

namespace image = criu::image;
namespace pb = criu::images;
using image::Reader;
using image::Writer;

std::uint64_t rounded(std::uint64_t size, std::uint64_t to) { return (size + to - 1) / to * to; }

void copy_raw(Reader& from, Writer& to, std::uint64_t size) { to.raw(from.raw(size)); }

// What follows a record. The default: nothing.
template <typename Message>
void payload(const Message& /*record*/, Reader& /*from*/, Writer& /*to*/) {}

void payload(const pb::pipe_data_entry& record, Reader& from, Writer& to) { copy_raw(from, to, record.bytes()); }
void payload(const pb::sk_packet_entry& record, Reader& from, Writer& to) { copy_raw(from, to, record.length()); }
void payload(const pb::tcp_stream_entry& record, Reader& from, Writer& to) {
  copy_raw(from, to, record.inq_len());
  copy_raw(from, to, record.outq_len());
}
void payload(const pb::bpfmap_data_entry& record, Reader& from, Writer& to) {
  copy_raw(from, to, record.keys_bytes());
  copy_raw(from, to, record.values_bytes());
}
void payload(const pb::ipc_shm_entry& record, Reader& from, Writer& to) {
  if (!record.in_pagemaps()) {
    copy_raw(from, to, rounded(record.size(), 4));
  }
}
void payload(const pb::ipc_sem_entry& record, Reader& from, Writer& to) {
  copy_raw(from, to, rounded(record.nsems() * 2ULL, 8));
}
void payload(const pb::ipc_msg_entry& record, Reader& from, Writer& to) {
  for (std::uint32_t i = 0; i < record.qnum(); ++i) {
    pb::ipc_msg message;
    if (!from.next(message)) {
      throw std::runtime_error("a queue has fewer messages than it says");
    }
    to.write(message);
    copy_raw(from, to, rounded(message.msize(), 8));
  }
}

template <typename Message>
void records(Reader& from, Writer& to) {
  Message record;
  while (from.next(record)) {
    to.write(record);
    payload(record, from, to);
  }
}

template <typename Message>
void single(Reader& from, Writer& to) {
  Message record;
  from.only(record);
  to.write(record);
}

void pagemap(Reader& from, Writer& to) {
  pb::pagemap_head head;
  if (!from.next(head)) {
    throw std::runtime_error("a pagemap without its head");
  }
  to.write(head);
  records<pb::pagemap_entry>(from, to);
}

void ghost_file(Reader& from, Writer& to) {
  pb::ghost_file_entry head;
  if (!from.next(head)) {
    throw std::runtime_error("a ghost file without its head");
  }
  to.write(head);
  if (!head.chunks()) {
    copy_raw(from, to, from.left());
    return;
  }
  pb::ghost_chunk_entry chunk;
  while (from.next(chunk)) {
    to.write(chunk);
    copy_raw(from, to, chunk.len());
  }
}

void raw_image(Reader& from, Writer& to) { copy_raw(from, to, from.left()); }

const std::vector<Codec>& codecs() {
  using namespace image::type;
  static const std::vector<Codec> all{
      {&inventory, single<pb::inventory_entry>},
      {&image::type::pstree, records<pb::pstree_entry>},
      {&core, single<pb::core_entry>},
      {&ids, single<pb::task_kobj_ids_entry>},
      {&mm, single<pb::mm_entry>},
      {&image::type::fs, single<pb::fs_entry>},
      {&creds, single<pb::creds_entry>},
      {&fdinfo, records<pb::fdinfo_entry>},
      {&image::type::pagemap, interop::pagemap},
      {&shmem_pagemap, interop::pagemap},
      {&pages, raw_image},
      {&files, records<pb::file_entry>},
      {&remap_fpath, records<pb::remap_file_path_entry>},
      {&image::type::ghost_file, interop::ghost_file},
      {&sk_queues, records<pb::sk_packet_entry>},
      {&pipes_data, records<pb::pipe_data_entry>},
      {&fifo_data, records<pb::pipe_data_entry>},
      {&tcp_stream, records<pb::tcp_stream_entry>},
      {&tty_info, records<pb::tty_info_entry>},
      {&tty_data, records<pb::tty_data_entry>},
      {&cgroup, single<pb::cgroup_entry>},
      {&file_locks, records<pb::file_lock_entry>},
      {&seccomp, single<pb::seccomp_entry>},
      {&apparmor, single<pb::apparmor_entry>},
      {&memfd_inode, records<pb::memfd_inode_entry>},
      {&bpfmap_data, records<pb::bpfmap_data_entry>},
      {&utsns, single<pb::utsns_entry>},
      {&mnts, records<pb::mnt_entry>},
      {&userns, single<pb::userns_entry>},
      {&timens, single<pb::timens_entry>},
      {&pidns, single<pb::pidns_entry>},
      {&ipc_var, single<pb::ipc_var_entry>},
      {&ipcns_shm, records<pb::ipc_shm_entry>},
      {&ipcns_msg, records<pb::ipc_msg_entry>},
      {&ipcns_sem, records<pb::ipc_sem_entry>},
      {&netdev, records<pb::net_device_entry>},
      {&netns, single<pb::netns_entry>},
      {&autofs, single<pb::autofs_entry>},
      {&binfmt_misc, records<pb::binfmt_misc_entry>},
      {&cpuinfo, single<pb::cpuinfo_entry>},
      {&stats_dump, single<pb::stats_entry>},
      {&stats_restore, single<pb::stats_entry>},
      {&irmap_cache, records<pb::irmap_cache_entry>},
  };
  return all;
}

// The name pattern of the catalog ("core-{}.img") as a regular expression.
std::regex pattern_of(const image::Type& type) {
  std::string pattern;
  for (const char* at = type.name; *at != '\0'; ++at) {
    if (std::string_view(at).starts_with("{:x}")) {
      pattern += "[0-9a-f]+";
      at += 3;
    } else if (std::string_view(at).starts_with("{}")) {
      pattern += "[0-9]+";
      at += 1;
    } else {
      pattern += *at == '.' ? std::string("\\.") : std::string(1, *at);
    }
  }
  return std::regex(pattern);
}

}  // namespace

Codec codec_of(const std::string& file_name) {
  for (const auto& codec : codecs()) {
    if (std::regex_match(file_name, pattern_of(*codec.type))) {
      return codec;
    }
  }
  // Outputs of other programs, which the format carries as they are.
  static const std::regex foreign(
      "(ifaddr|route|route6|rule|iptables|ip6tables|nftables|netns-ct|netns-exp)-[0-9]+\\.img|"
      "tmpfs(-dev)?-[0-9]+\\.tar\\.gz\\.img");
  if (std::regex_match(file_name, foreign)) {
    return {};
  }
  throw std::runtime_error("no image of this format is called " + file_name);
}

}  // namespace interop
