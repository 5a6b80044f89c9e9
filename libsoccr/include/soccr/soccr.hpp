// SPDX-License-Identifier: LGPL-2.1-only
// libsoccr for C++: the handle owns, and errors are std::system_error.
//
//   soccr::Socket connection(fd);
//   if (connection.state() == SOCCR_ESTABLISHED) { … }
#pragma once

#include <soccr/soccr.h>

#include <system_error>
#include <utility>

namespace soccr {

class Socket {
 public:
  // Throws std::system_error with the errno that soccr_open returned.
  explicit Socket(int fd) { check(::soccr_open(fd, &handle_), "soccr_open"); }
  Socket(Socket&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() { ::soccr_close(handle_); }

  enum soccr_state state() const {
    return static_cast<enum soccr_state>(check(::soccr_state(handle_), "soccr_state"));
  }
  soccr_socket* get() const { return handle_; }

 private:
  static int check(int result, const char* what) {
    if (result < 0) {
      throw std::system_error(-result, std::generic_category(), what);
    }
    return result;
  }

  soccr_socket* handle_ = nullptr;
};

}  // namespace soccr
