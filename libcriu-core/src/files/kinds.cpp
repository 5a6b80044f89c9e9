// SPDX-License-Identifier: LGPL-2.1-only
#include <fmt/format.h>

#include "base/error.hpp"
#include "files/bpf_map.hpp"
#include "files/epoll.hpp"
#include "files/eventfd.hpp"
#include "files/fanotify.hpp"
#include "files/fifo.hpp"
#include "files/inotify.hpp"
#include "files/io_uring.hpp"
#include "files/memfd.hpp"
#include "files/namespace_file.hpp"
#include "files/pidfd.hpp"
#include "files/pipe.hpp"
#include "files/plugin_file.hpp"
#include "files/posix_mq.hpp"
#include "files/regular.hpp"
#include "files/signalfd.hpp"
#include "files/timerfd.hpp"
#include "files/tty.hpp"
#include "files/tun.hpp"
#include "sockets/inet.hpp"
#include "sockets/netlink.hpp"
#include "sockets/packet.hpp"
#include "sockets/unix.hpp"

namespace criu::files {

namespace {

// Asked in this order at dump, so the more particular stand before the more general.
const Kind* const table[] = {
    &pipe_kind,
    &eventfd_kind,
    &epoll_kind,
    &signalfd_kind,
    &timerfd_kind,
    &memfd_kind,
    &io_uring_kind,
    &posix_mq_kind,
    &inotify_kind,
    &fanotify_kind,
    &pidfd_kind,
    &bpf_map_kind,
    &namespace_kind,
    &tun_kind,
    &fifo_kind,
    &sockets::unix_kind,
    &sockets::inet_kind,
    &sockets::netlink_kind,
    &sockets::packet_kind,
    &plugin_kind,
    &tty_kind,
    &regular_kind,
};

}  // namespace

std::span<const Kind* const> kinds() { return table; }

const Kind& kind_of(const images::file_entry& entry) {
  for (const Kind* kind : table) {
    if (kind->type == entry.type() && kind->make != nullptr) {
      return *kind;
    }
  }
  throw base::Error("not supported by this version",
                    fmt::format("file {} is of type {}", entry.id(), images::fd_types_Name(entry.type())), 0);
}

std::string Description::what() const {
  return referrer.empty() ? fmt::format("fd {} of task {} ({})", fd, pid, link) : referrer;
}

}  // namespace criu::files
