// SPDX-License-Identifier: LGPL-2.1-only
// libsoccr for C++: handles own, and errors are exceptions.
//
//   soccr::Socket here(fd);                       // where the connection is
//   here.hold();
//   const std::vector<std::byte> bytes = here.save().encode();
//   here.detach(), ::close(fd);
//
//   soccr::Socket there = soccr::Socket::restore(soccr::Saved::decode(bytes));   // where it goes
//   there.resume();
//
// The functions are those of soccr.h, which says what they do and need.
#pragma once

#include <soccr/soccr.h>

#include <cstddef>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace soccr {

// code() is the errno that the C function returned; what() has the library's own words.
class Error : public std::system_error {
 public:
  Error(int code, const char* function, const char* text)
      : std::system_error(code, std::generic_category(), function), what_(text[0] != 0 ? text : system_error::what()) {}
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  std::string what_;
};

namespace detail {

template <typename Call>
int check(const char* function, Call call) {
  soccr_error error{};
  const int result = call(&error);
  if (result < 0) {
    throw Error(-result, function, error.text);
  }
  return result;
}

}  // namespace detail

// A saved connection. A value that does not change: copies are the same one.
class Saved {
 public:
  explicit Saved(soccr_saved* saved) : saved_(saved, ::soccr_saved_free) {}
  Saved(const soccr_fields& fields, const void* inq, const void* outq)
      : Saved(make("soccr_saved_new", [&](soccr_saved** made, soccr_error* error) {
          return ::soccr_saved_new(&fields, inq, outq, made, error);
        })) {}

  static Saved decode(const void* bytes, std::size_t size) {
    return Saved(make("soccr_decode", [&](soccr_saved** made, soccr_error* error) {
      return ::soccr_decode(bytes, size, made, error);
    }));
  }
  static Saved decode(const std::vector<std::byte>& bytes) { return decode(bytes.data(), bytes.size()); }
  std::vector<std::byte> encode() const {
    std::vector<std::byte> bytes(::soccr_encoded_size(get()));
    ::soccr_encode(get(), bytes.data());
    return bytes;
  }

  const soccr_fields& fields() const { return *::soccr_saved_fields(get()); }
  const void* inq() const { return ::soccr_saved_inq(get()); }
  const void* outq() const { return ::soccr_saved_outq(get()); }
  const soccr_saved* get() const { return saved_.get(); }

 private:
  template <typename Call>
  static soccr_saved* make(const char* function, Call call) {
    soccr_saved* made = nullptr;
    detail::check(function, [&](soccr_error* error) { return call(&made, error); });
    return made;
  }

  std::shared_ptr<soccr_saved> saved_;
};

// A TCP socket. A held connection goes on when its owner goes away.
class Socket {
 public:
  explicit Socket(int fd) {
    detail::check("soccr_open", [&](soccr_error* /*none*/) { return ::soccr_open(fd, &handle_); });
  }
  static Socket restore(const Saved& saved, int fd = -1, unsigned flags = 0) {
    soccr_socket* handle = nullptr;
    detail::check("soccr_restore",
                  [&](soccr_error* error) { return ::soccr_restore(fd, saved.get(), flags, &handle, error); });
    return Socket(handle);
  }
  Socket(Socket&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() { ::soccr_close(handle_); }

  enum soccr_state state() const {
    return static_cast<enum soccr_state>(
        detail::check("soccr_state", [&](soccr_error* /*none*/) { return ::soccr_state(handle_); }));
  }
  int fd() const { return ::soccr_fd(handle_); }
  void hold() {
    detail::check("soccr_hold", [&](soccr_error* error) { return ::soccr_hold(handle_, error); });
  }
  Saved save(unsigned flags = 0) {
    soccr_saved* saved = nullptr;
    detail::check("soccr_save", [&](soccr_error* error) { return ::soccr_save(handle_, flags, &saved, error); });
    return Saved(saved);
  }
  void resume(unsigned flags = 0) {
    detail::check("soccr_resume", [&](soccr_error* error) { return ::soccr_resume(handle_, flags, error); });
  }
  void detach() { ::soccr_detach(std::exchange(handle_, nullptr)); }
  soccr_socket* get() const { return handle_; }

 private:
  explicit Socket(soccr_socket* handle) : handle_(handle) {}

  soccr_socket* handle_ = nullptr;
};

}  // namespace soccr
