// SPDX-License-Identifier: LGPL-2.1-only
#include "rpc/channel.hpp"

#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>

#include "base/error.hpp"

namespace criu::rpc {

using base::check;
using base::Error;

namespace {

// Larger than any request makes sense, and small enough for memory.
constexpr ssize_t largest = 16 << 20;

}  // namespace

Channel::Channel(base::Fd socket) : socket_(std::move(socket)) {
  ucred who{};
  socklen_t size = sizeof who;
  check(::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &who, &size), "find out who speaks on", "the socket");
  peer_ = who.pid;
  peer_user_ = who.uid;
}

images::criu_req Channel::receive() {
  ssize_t size = 0;
  while ((size = ::recv(socket_.get(), nullptr, 0, MSG_PEEK | MSG_TRUNC)) < 0 && errno == EINTR) {
  }
  check(size, "receive a request");
  if (size == 0) {
    throw Error("Client exited unexpectedly", {}, ECONNRESET);
  }
  if (size > largest) {
    throw Error("RPC error: a request of", std::to_string(size) + " bytes", EBADMSG);
  }
  std::string packet(static_cast<std::size_t>(size), '\0');
  check(::recv(socket_.get(), packet.data(), packet.size(), 0), "receive a request");
  images::criu_req request;
  if (!request.ParseFromString(packet)) {
    throw Error("RPC error: this is no request", {}, EBADMSG);
  }
  return request;
}

void Channel::send(const images::criu_resp& response, int fd) {
  auto packet = response.SerializeAsString();
  iovec data{packet.data(), packet.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof fd)] = {};
  if (fd >= 0) {
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    auto* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  ssize_t sent = 0;
  while ((sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL)) < 0 && errno == EINTR) {
  }
  check(sent, "answer the client");
}

std::uint32_t Channel::inode() const {
  struct stat info {};
  check(::fstat(socket_.get(), &info), "look at", "the socket");
  return static_cast<std::uint32_t>(info.st_ino);
}

}  // namespace criu::rpc
