// SPDX-License-Identifier: LGPL-2.1-only
#include "soccr/soccr.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <new>

#include "base/fd.hpp"

struct soccr_socket {
  base::Fd fd;
};

namespace {

// 0, or why this is no TCP socket. By protocol and not by type and family alone: MPTCP and SCTP have streams, too.
int require_tcp(int fd) {
  int protocol = 0;
  socklen_t size = sizeof protocol;
  if (::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) != 0) {
    return -errno;
  }
  int domain = 0;
  size = sizeof domain;
  if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
    return -errno;
  }
  const bool tcp = protocol == IPPROTO_TCP && (domain == AF_INET || domain == AF_INET6);
  return tcp ? 0 : -EPROTONOSUPPORT;
}

}  // namespace

unsigned soccr_version() { return SOCCR_VERSION_MAJOR * 10000U + SOCCR_VERSION_MINOR * 100U + SOCCR_VERSION_PATCH; }

int soccr_open(int fd, soccr_socket** handle) {
  *handle = nullptr;
  if (const int error = require_tcp(fd); error != 0) {
    return error;
  }
  base::Fd own(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!own) {
    return -errno;
  }
  *handle = new (std::nothrow) soccr_socket{std::move(own)};
  return *handle != nullptr ? 0 : -ENOMEM;
}

int soccr_state(const soccr_socket* handle) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(handle->fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) {
    return -errno;
  }
  return info.tcpi_state;
}

void soccr_close(soccr_socket* handle) { delete handle; }
