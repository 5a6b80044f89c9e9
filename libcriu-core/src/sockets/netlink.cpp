// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/netlink.hpp"

#include <fmt/format.h>
#include <linux/netlink.h>
#include <poll.h>

#include "base/kernel.hpp"
#include "files/common.hpp"
#include "files/saver.hpp"
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

SocketType type_of(const images::netlink_sk_entry& entry) {
  return {AF_NETLINK, SOCK_RAW, static_cast<int>(entry.protocol())};
}

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  const auto what = description.what();
  const auto* info = saver.sockets().diagnostics.find_netlink(inode_of(description));
  if (info == nullptr) {
    throw Error("cannot dump", what + " is a netlink socket that the kernel's diagnostics do not show", 0,
                "it belongs to another network namespace, or CONFIG_NETLINK_DIAG is missing");
  }
  pollfd poll{description.own, POLLIN, 0};
  if (!saver.dump().look_only && ::poll(&poll, 1, 0) > 0 && (poll.revents & POLLIN) != 0) {
    throw Error("cannot dump", what + " is a netlink socket with unread answers", 0, "try again a moment later");
  }
  auto& socket = *entry.mutable_nlsk();
  socket.set_protocol(static_cast<std::uint32_t>(get(description.own, SOL_SOCKET, SO_PROTOCOL, what)));
  begin_entry(saver, description, entry.id(), type_of(socket), socket);
  socket.set_state(info->state);
  socket.set_portid(info->portid);
  socket.set_dst_portid(info->dst_portid);
  socket.set_dst_group(info->dst_group);
  // Those that the format knows are one word; the rest only where they are.
  auto groups = info->groups;
  while (!groups.empty() && groups.back() == 0) {
    groups.pop_back();
  }
  for (std::size_t i = 0; i < groups.size(); ++i) {
    i == 0 ? socket.add_groups(groups[i]) : socket.add_more_groups(groups[i]);
  }
}

void join(int fd, std::uint32_t mask, int first, const std::string& what) {
  for (int bit = 0; bit < 32; ++bit) {
    if ((mask >> bit & 1) != 0) {
      set(fd, SOL_NETLINK, base::kernel::netlink_add_membership, first + bit, what);
    }
  }
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->nlsk();
  const auto what = fmt::format("netlink socket {} (file {})", entry.ino(), entry.id());
  if (entry.protocol() > 255 || entry.groups_size() > 1 || entry.dst_group() > 32) {
    throw Error("corrupt checkpoint", what, 0);
  }
  const auto type = type_of(entry);
  auto fd = make_socket(type, what);
  auto& options = context.objects.socket_options;
  options.restore_early(fd.get(), type, entry.opts(), what);
  options.restore_sizes(fd.get(), type, entry.opts(), what);
  if (entry.portid() != 0) {
    sockaddr_nl own{AF_NETLINK, 0, entry.portid(), 0};
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&own), sizeof own) < 0) {
      if (errno != EADDRINUSE) {
        check(-1, "bind", what);
      }
      LOG_WARN("{}: its port {} is taken; it gets another", what, entry.portid());
      own.nl_pid = 0;
      check(::bind(fd.get(), reinterpret_cast<sockaddr*>(&own), sizeof own), "bind", what);
    }
  }
  join(fd.get(), entry.groups_size() > 0 ? entry.groups(0) : 0, 1, what);
  for (int i = 0; i < entry.more_groups_size(); ++i) {
    join(fd.get(), entry.more_groups(i), 33 + 32 * i, what);
  }
  if (entry.state() == established) {
    const sockaddr_nl peer{AF_NETLINK, 0, entry.dst_portid(),
                           entry.dst_group() == 0 ? 0 : 1U << (entry.dst_group() - 1)};
    check(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&peer), sizeof peer), "connect", what);
  }
  files::set_flags(fd.get(), entry.flags(), what);
  options.restore_late(fd.get(), type, entry.opts(), what);
  return files::one(std::move(fd));
}

}  // namespace

const files::Kind netlink_kind = {
    .type = images::NETLINKSK,
    .name = "netlink socket",
    .recognise = is_of<AF_NETLINK>,
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_nlsk()->mutable_fown(); },
    .make = make,
};

}  // namespace criu::sockets
