// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/packet.hpp"

#include <fmt/format.h>
#include <linux/if_packet.h>
#include <poll.h>

#include <algorithm>
#include <cstring>

#include "base/kernel.hpp"
#include "files/common.hpp"
#include "log.hpp"
#include "restore_context.hpp"
#include "sockets/family.hpp"

namespace criu::sockets {

using base::check;
using base::Error;
using files::Description;
using files::Made;
using files::Saver;

namespace {

SocketType type_of(const images::packet_sock_entry& entry) {
  return {AF_PACKET, static_cast<int>(entry.type()), static_cast<int>(entry.protocol())};
}

void save_ring(const packet_diag_ring& ring, images::packet_ring& entry) {
  entry.set_block_size(ring.pdr_block_size);
  entry.set_block_nr(ring.pdr_block_nr);
  entry.set_frame_size(ring.pdr_frame_size);
  entry.set_frame_nr(ring.pdr_frame_nr);
  entry.set_retire_tmo(ring.pdr_retire_tmo);
  entry.set_sizeof_priv(ring.pdr_sizeof_priv);
  entry.set_features(ring.pdr_features);
}

void check_extras(Saver& saver, const Description& description, const PacketInfo& info) {
  if (const auto way = info.fanout.value_or(0) >> 16 & 0xff;
      info.fanout && (way == PACKET_FANOUT_CBPF || way == PACKET_FANOUT_EBPF)) {
    throw Error(
        "cannot dump",
        description.what() + " shares packets with others by a BPF program, which the kernel does not give back", 0);
  }
  constexpr int usual_header = 10;
  if (try_get(description.own, SOL_PACKET, base::kernel::packet_vnet_hdr_sz).value_or(0) > usual_header) {
    throw Error("cannot dump", description.what() + " has headers of an unusual size (PACKET_VNET_HDR_SZ)", 0);
  }
  pollfd poll{description.own, POLLIN, 0};
  if (!saver.dump().look_only && ::poll(&poll, 1, 0) > 0 && (poll.revents & POLLIN) != 0) {
    LOG_WARN("{}: packets that wait to be received are not saved", description.what());
  }
}

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  const auto what = description.what();
  const auto* info = saver.sockets().diagnostics.find_packet(inode_of(description));
  if (info == nullptr) {
    throw Error("cannot dump", what + " is a packet socket that the kernel's diagnostics do not show", 0,
                "it belongs to another network namespace, or CONFIG_PACKET_DIAG is missing");
  }
  check_extras(saver, description, *info);
  auto& socket = *entry.mutable_psk();
  socket.set_type(static_cast<std::uint32_t>(get(description.own, SOL_SOCKET, SO_TYPE, what)));
  socket.set_protocol(info->protocol);
  begin_entry(saver, description, entry.id(), type_of(socket), socket);
  socket.set_ifindex(info->info.pdi_index);
  socket.set_version(info->info.pdi_version);
  socket.set_reserve(info->info.pdi_reserve);
  socket.set_aux_data((info->info.pdi_flags & PDI_AUXDATA) != 0);
  socket.set_orig_dev((info->info.pdi_flags & PDI_ORIGDEV) != 0);
  socket.set_vnet_hdr((info->info.pdi_flags & PDI_VNETHDR) != 0);
  socket.set_loss((info->info.pdi_flags & PDI_LOSS) != 0);
  socket.set_timestamp(info->info.pdi_tstamp);
  socket.set_copy_thresh(info->info.pdi_copy_thresh);
  for (const auto& one : info->memberships) {
    auto& member = *socket.add_mclist();
    member.set_index(one.pdmc_index);
    member.set_type(one.pdmc_type);
    const std::size_t length = std::min<std::size_t>(one.pdmc_alen, sizeof one.pdmc_addr);
    const bool addressed = one.pdmc_type == PACKET_MR_MULTICAST || one.pdmc_type == PACKET_MR_UNICAST;
    member.set_addr(addressed ? std::string(reinterpret_cast<const char*>(one.pdmc_addr), length) : std::string());
  }
  if (info->fanout) {
    // The diagnostics leave the flags out.
    socket.set_fanout(try_get<std::uint32_t>(description.own, SOL_PACKET, PACKET_FANOUT).value_or(*info->fanout));
  }
  if (info->rx_ring) {
    save_ring(*info->rx_ring, *socket.mutable_rx_ring());
  }
  if (info->tx_ring) {
    save_ring(*info->tx_ring, *socket.mutable_tx_ring());
  }
}

void restore_ring(int fd, int option, int version, const images::packet_ring& ring, const std::string& what) {
  tpacket_req3 request{ring.block_size(), ring.block_nr(),    ring.frame_size(), ring.frame_nr(),
                       ring.retire_tmo(), ring.sizeof_priv(), ring.features()};
  // Older versions know the first half only.
  const socklen_t size = version == TPACKET_V3 ? sizeof request : sizeof(tpacket_req);
  check(::setsockopt(fd, SOL_PACKET, option, &request, size), "make the ring of", what);
}

void restore_memberships(int fd, const images::packet_sock_entry& entry, const std::string& what) {
  for (const auto& member : entry.mclist()) {
    packet_mreq request{};
    if (member.addr().size() > sizeof request.mr_address) {
      throw Error("corrupt checkpoint", what + ": an address is too long", 0);
    }
    request.mr_ifindex = static_cast<int>(member.index());
    request.mr_type = static_cast<unsigned short>(member.type());
    request.mr_alen = static_cast<unsigned short>(member.addr().size());
    std::memcpy(request.mr_address, member.addr().data(), member.addr().size());
    set(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, request, what);
  }
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->psk();
  const auto what = fmt::format("packet socket (file {})", entry.id());
  if (entry.protocol() > 0xffff || entry.version() > TPACKET_V3 ||
      (entry.type() != SOCK_RAW && entry.type() != SOCK_DGRAM && entry.type() != SOCK_PACKET)) {
    throw Error("corrupt checkpoint", what, 0);
  }
  const auto type = type_of(entry);
  // Nothing is received before it is bound to its protocol, at the end.
  auto fd = make_socket({AF_PACKET, type.type, 0}, what);
  auto& options = context.objects.socket_options;
  options.restore_early(fd.get(), type, entry.opts(), what);
  options.restore_sizes(fd.get(), type, entry.opts(), what);
  const auto number = [&](int option, std::uint32_t value) {
    if (value != 0) {
      set(fd.get(), SOL_PACKET, option, value, what);
    }
  };
  const auto version = static_cast<int>(entry.version());
  number(PACKET_VERSION, entry.version());
  number(PACKET_RESERVE, entry.reserve());
  number(PACKET_VNET_HDR, entry.vnet_hdr());
  number(PACKET_AUXDATA, entry.aux_data());
  number(PACKET_ORIGDEV, entry.orig_dev());
  number(PACKET_LOSS, entry.loss());
  number(PACKET_TIMESTAMP, entry.timestamp());
  number(PACKET_COPY_THRESH, entry.copy_thresh());
  restore_memberships(fd.get(), entry, what);
  if (entry.has_rx_ring()) {
    restore_ring(fd.get(), PACKET_RX_RING, version, entry.rx_ring(), what);
  }
  if (entry.has_tx_ring()) {
    restore_ring(fd.get(), PACKET_TX_RING, version, entry.tx_ring(), what);
  }
  options.restore_late(fd.get(), type, entry.opts(), what);
  files::set_flags(fd.get(), entry.flags(), what);
  if (type.type == SOCK_PACKET) {
    return files::one(std::move(fd));
  }
  sockaddr_ll own{};
  own.sll_family = AF_PACKET;
  own.sll_protocol = static_cast<std::uint16_t>(entry.protocol());
  own.sll_ifindex = static_cast<int>(entry.ifindex());
  if (own.sll_protocol != 0 || own.sll_ifindex != 0) {
    check(::bind(fd.get(), reinterpret_cast<sockaddr*>(&own), sizeof own), "bind", what,
          errno == ENODEV ? "its network device must be there first" : "");
  }
  if (entry.has_fanout() && entry.fanout() != ~0U) {
    set(fd.get(), SOL_PACKET, PACKET_FANOUT, entry.fanout(), what);
  }
  return files::one(std::move(fd));
}

}  // namespace

const files::Kind packet_kind = {
    .type = images::PACKETSK,
    .name = "packet socket",
    .recognise = is_of<AF_PACKET>,
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_psk()->mutable_fown(); },
    .make = make,
};

}  // namespace criu::sockets
