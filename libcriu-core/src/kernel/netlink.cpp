// SPDX-License-Identifier: LGPL-2.1-only
#include "kernel/netlink.hpp"

#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cstring>

#include "base/error.hpp"

namespace criu::kernel {

using base::check;

std::optional<std::span<const std::byte>> Attributes::find(unsigned type) const {
  auto rest = bytes_;
  while (rest.size() >= sizeof(rtattr)) {
    rtattr header{};
    std::memcpy(&header, rest.data(), sizeof header);
    if (header.rta_len < sizeof header || header.rta_len > rest.size()) {
      return std::nullopt;
    }
    if ((header.rta_type & NLA_TYPE_MASK) == type) {
      return rest.subspan(sizeof header, header.rta_len - sizeof header);
    }
    const std::size_t step = RTA_ALIGN(header.rta_len);
    if (step >= rest.size()) {
      return std::nullopt;
    }
    rest = rest.subspan(step);
  }
  return std::nullopt;
}

std::vector<std::uint32_t> Attributes::words(unsigned type) const {
  std::vector<std::uint32_t> words;
  if (const auto bytes = find(type)) {
    words.resize(bytes->size() / sizeof(std::uint32_t));
    if (!words.empty()) {
      std::memcpy(words.data(), bytes->data(), words.size() * sizeof(std::uint32_t));
    }
  }
  return words;
}

Netlink::Netlink(int protocol)
    : fd_(check(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), "open a netlink socket")), buffer_(1 << 16) {}

bool Netlink::dump(std::uint16_t type, std::span<const std::byte> request,
                   const std::function<void(std::span<const std::byte>)>& seen, const std::string& what) {
  nlmsghdr header{};
  header.nlmsg_len = static_cast<std::uint32_t>(NLMSG_HDRLEN + request.size());
  header.nlmsg_type = type;
  header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  header.nlmsg_seq = ++sequence_;
  std::vector<std::byte> message(header.nlmsg_len);
  std::memcpy(message.data(), &header, sizeof header);
  std::memcpy(message.data() + NLMSG_HDRLEN, request.data(), request.size());
  check(::send(fd_.get(), message.data(), message.size(), 0), "ask for", what);
  for (;;) {
    const auto got =
        static_cast<std::size_t>(check(::recv(fd_.get(), buffer_.data(), buffer_.size(), 0), "list", what));
    for (std::size_t at = 0; at + sizeof header <= got;) {
      std::memcpy(&header, buffer_.data() + at, sizeof header);
      if (header.nlmsg_len < sizeof header || header.nlmsg_len > got - at) {
        throw base::Error("list", what + ": the kernel's answer makes no sense", 0);
      }
      const auto body = std::span<const std::byte>(buffer_).subspan(at + NLMSG_HDRLEN, header.nlmsg_len - NLMSG_HDRLEN);
      at += NLMSG_ALIGN(header.nlmsg_len);
      if (header.nlmsg_seq != sequence_) {
        continue;
      }
      if (header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR) {
        // Both carry the number first: a table that is missing ends the list with an error in DONE.
        int error = 0;
        std::memcpy(&error, body.data(), std::min(sizeof error, body.size()));
        if (error != 0 && error != -ENOENT) {
          throw base::Error("list", what, -error);
        }
        return error == 0;
      }
      seen(body);
    }
  }
}

}  // namespace criu::kernel
