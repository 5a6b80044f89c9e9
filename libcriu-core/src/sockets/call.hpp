// SPDX-License-Identifier: LGPL-2.1-only
// getsockopt and setsockopt by type, with errors that name the socket.
#pragma once

#include <fmt/format.h>
#include <sys/socket.h>

#include <compare>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "namespaces/steward.hpp"

namespace criu::sockets {

// What a socket was made as.
struct SocketType {
  int family = 0, type = 0, protocol = 0;
  auto operator<=>(const SocketType&) const = default;  // NOLINT(modernize-use-nullptr): there is none
};

// Nothing when the kernel or this kind of socket does not know the option.
template <typename Value = int>
std::optional<Value> try_get(int fd, int level, int option) {
  Value value{};
  socklen_t size = sizeof value;
  if (::getsockopt(fd, level, option, &value, &size) < 0) {
    return std::nullopt;
  }
  return value;
}

template <typename Value = int>
Value get(int fd, int level, int option, const std::string& what) {
  Value value{};
  socklen_t size = sizeof value;
  base::check(::getsockopt(fd, level, option, &value, &size), "read an option of", what);
  return value;
}

template <typename Value = int>
void set(int fd, int level, int option, const Value& value, const std::string& what) {
  base::check(::setsockopt(fd, level, option, &value, sizeof value),
              fmt::format("set option {} of level {} of", option, level).c_str(), what);
}

// One that takes a capability which no user namespace gives.
inline int force(int fd, int level, int option, int value) {
  const int result = ::setsockopt(fd, level, option, &value, sizeof value);
  const auto* steward = namespaces::Steward::current();
  return result < 0 && errno == EPERM && steward != nullptr && steward->set_option(fd, level, option, value) ? 0
                                                                                                             : result;
}

// Sets an option for as long as the scope lasts.
class Borrowed {
 public:
  Borrowed(int fd, int level, int option, int value, const std::string& what)
      : fd_(fd), level_(level), option_(option), before_(get(fd, level, option, what)) {
    // The kernel moves the offset with each look, also one that was there before.
    changed_ = before_ != value || (level == SOL_SOCKET && option == SO_PEEK_OFF);
    if (changed_) {
      set(fd, level, option, value, what);
    }
  }
  ~Borrowed() {
    if (changed_) {
      ::setsockopt(fd_, level_, option_, &before_, sizeof before_);
    }
  }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;

 private:
  int fd_, level_, option_, before_;
  bool changed_ = false;
};

inline base::Fd make_socket(const SocketType& type, const std::string& what) {
  return base::Fd(base::check(::socket(type.family, type.type | SOCK_CLOEXEC, type.protocol), "make", what));
}

}  // namespace criu::sockets
