// SPDX-License-Identifier: LGPL-2.1-only
#include "kernel/netlink.hpp"

#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.hpp"

namespace criu::kernel {

using base::check;

namespace {

// Takes the first attribute off the rest; nothing at the end, or where the lengths make no sense.
std::optional<std::pair<unsigned, std::span<const std::byte>>> take_first(std::span<const std::byte>& rest) {
  rtattr header{};
  if (rest.size() < sizeof header) {
    return std::nullopt;
  }
  std::memcpy(&header, rest.data(), sizeof header);
  if (header.rta_len < sizeof header || header.rta_len > rest.size()) {
    return std::nullopt;
  }
  const auto value = rest.subspan(sizeof header, header.rta_len - sizeof header);
  rest = rest.subspan(std::min<std::size_t>(RTA_ALIGN(header.rta_len), rest.size()));
  return std::pair<unsigned, std::span<const std::byte>>(header.rta_type & NLA_TYPE_MASK, value);
}

}  // namespace

std::optional<std::span<const std::byte>> Attributes::find(unsigned type) const {
  auto rest = bytes_;
  while (const auto one = take_first(rest)) {
    if (one->first == type) {
      return one->second;
    }
  }
  return std::nullopt;
}

void Attributes::each(const std::function<void(unsigned, std::span<const std::byte>)>& see) const {
  auto rest = bytes_;
  while (const auto one = take_first(rest)) {
    see(one->first, one->second);
  }
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

void Request::append(const void* bytes, std::size_t size) {
  const auto* from = static_cast<const std::byte*>(bytes);
  bytes_.insert(bytes_.end(), from, from + size);
  bytes_.resize(NLMSG_ALIGN(bytes_.size()));
}

Request& Request::add_bytes(unsigned type, std::span<const std::byte> bytes) {
  const rtattr header{static_cast<std::uint16_t>(RTA_LENGTH(bytes.size())), static_cast<std::uint16_t>(type)};
  append(&header, sizeof header);
  append(bytes.data(), bytes.size());
  return *this;
}

Request& Request::add_text(unsigned type, const std::string& text) {
  return add_bytes(type, std::as_bytes(std::span(text.c_str(), text.size() + 1)));
}

Request& Request::nest(unsigned type, const std::function<void(Request&)>& fill) {
  const auto at = bytes_.size();
  rtattr header{0, static_cast<std::uint16_t>(type)};
  append(&header, sizeof header);
  fill(*this);
  header.rta_len = static_cast<std::uint16_t>(bytes_.size() - at);
  std::memcpy(bytes_.data() + at, &header, sizeof header);
  return *this;
}

base::Fd Netlink::socket(int protocol) {
  return base::Fd(check(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), "open a netlink socket"));
}

Netlink::Netlink(base::Fd socket) : fd_(std::move(socket)), buffer_(1 << 16) {
  // Without them errors are but numbers; with them the request is not repeated in the answer.
  const int on = 1;
  (void)::setsockopt(fd_.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  (void)::setsockopt(fd_.get(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
}

void Netlink::send(std::uint16_t type, unsigned flags, std::span<const std::byte> request, const std::string& what) {
  nlmsghdr header{};
  header.nlmsg_len = static_cast<std::uint32_t>(NLMSG_HDRLEN + request.size());
  header.nlmsg_type = type;
  header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  header.nlmsg_seq = ++sequence_;
  std::vector<std::byte> message(header.nlmsg_len);
  std::memcpy(message.data(), &header, sizeof header);
  std::memcpy(message.data() + NLMSG_HDRLEN, request.data(), request.size());
  check(::send(fd_.get(), message.data(), message.size(), 0), "ask for", what);
}

bool Netlink::dump(std::uint16_t type, std::span<const std::byte> request,
                   const std::function<void(std::span<const std::byte>)>& seen, const std::string& what) {
  return list(
      type, request, [&](const nlmsghdr&, std::span<const std::byte> body) { seen(body); }, what);
}

bool Netlink::list(std::uint16_t type, std::span<const std::byte> request,
                   const std::function<void(const nlmsghdr&, std::span<const std::byte>)>& seen,
                   const std::string& what) {
  send(type, NLM_F_DUMP, request, what);
  nlmsghdr header{};
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
      seen(header, body);
    }
  }
}

int Netlink::attempt(std::uint16_t type, unsigned flags, std::span<const std::byte> request, const std::string& what) {
  send(type, flags | NLM_F_ACK, request, what);
  for (;;) {
    const auto got = static_cast<std::size_t>(check(::recv(fd_.get(), buffer_.data(), buffer_.size(), 0), "set", what));
    nlmsghdr header{};
    if (got < NLMSG_HDRLEN + sizeof(nlmsgerr)) {
      throw base::Error("set", what + ": the kernel's answer makes no sense", 0);
    }
    std::memcpy(&header, buffer_.data(), sizeof header);
    if (header.nlmsg_seq != sequence_ || header.nlmsg_type != NLMSG_ERROR) {
      continue;
    }
    int error = 0;
    std::memcpy(&error, buffer_.data() + NLMSG_HDRLEN, sizeof error);
    complaint_.clear();
    if ((header.nlmsg_flags & NLM_F_ACK_TLVS) != 0 && (header.nlmsg_flags & NLM_F_CAPPED) != 0) {
      const Attributes more(std::span<const std::byte>(buffer_).subspan(NLMSG_HDRLEN + sizeof(nlmsgerr),
                                                                        got - NLMSG_HDRLEN - sizeof(nlmsgerr)));
      if (const auto words = more.find(NLMSGERR_ATTR_MSG); words && !words->empty()) {
        complaint_.assign(reinterpret_cast<const char*>(words->data()), words->size() - 1);
      }
    }
    return -error;
  }
}

void Netlink::change(std::uint16_t type, unsigned flags, std::span<const std::byte> request, const std::string& what) {
  if (const int error = attempt(type, flags, request, what); error != 0) {
    throw base::Error("set", what, error, complaint_);
  }
}

}  // namespace criu::kernel
