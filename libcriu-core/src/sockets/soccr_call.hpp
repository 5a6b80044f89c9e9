// SPDX-License-Identifier: LGPL-2.1-only
// libsoccr's handles, with errors that name the connection.
#pragma once

#include <soccr/soccr.h>

#include <string>
#include <utility>

#include "base/error.hpp"
#include "sockets/tcp_saved.hpp"

namespace criu::sockets {

class Soccr {
 public:
  // What lives in a socket.
  Soccr(int fd, std::string what) : what_(std::move(what)) { demand(soccr_open(fd, &handle_), "take hold of"); }
  // Puts a saved connection into a fresh socket.
  Soccr(int fd, const soccr_saved& saved, std::string what) : what_(std::move(what)) {
    demand(soccr_restore(fd, &saved, 0, &handle_, &error_), "restore the connection of");
  }
  ~Soccr() { soccr_close(handle_); }
  Soccr(const Soccr&) = delete;
  Soccr& operator=(const Soccr&) = delete;

  void hold() { demand(soccr_hold(handle_, &error_), "hold the connection of"); }
  Saved save() {
    soccr_saved* saved = nullptr;
    demand(soccr_save(handle_, 0, &saved, &error_), "save the connection of");
    return Saved(saved);
  }
  void resume(unsigned flags) { demand(soccr_resume(handle_, flags, &error_), "resume the connection of"); }
  // What is held stays held.
  void detach() { soccr_detach(std::exchange(handle_, nullptr)); }

 private:
  void demand(int result, const char* operation) {
    if (result < 0) {
      const bool said = error_.text[0] != '\0';
      throw base::Error(operation, said ? what_ + ": " + error_.text : what_, said ? 0 : -result, hint(-result));
    }
  }
  static const char* hint(int error) {
    switch (error) {
      case EADDRNOTAVAIL:
        return "the address must be on this machine again first";
      case EADDRINUSE:
        return "the very connection is there already: was the tree restored before, or did the dump leave it running?";
      case ENETUNREACH:
      case EHOSTUNREACH:
        return "the route to the peer must be there first";
      default:
        return "";
    }
  }

  std::string what_;
  soccr_socket* handle_ = nullptr;
  soccr_error error_{};
};

}  // namespace criu::sockets
