// SPDX-License-Identifier: LGPL-2.1-only
// Who restores a tree in a user namespace is nobody outside of it, and its tasks are from their birth on. For what they
// need of the outside there is a process that has stayed there: the images, which may be for root alone, descriptors of
// each other at moments when the kernel gives them to nobody inside, and what of a process only root may change.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <string>

#include "base/fd.hpp"

namespace criu {
struct RestoreContext;
}

namespace criu::namespaces {

class Steward {
 public:
  // The one of this restore; null: everybody is root here.
  static const Steward* current() { return current_; }

  // Forks it. It has the images from here.
  explicit Steward(const RestoreContext&);
  ~Steward();
  Steward(const Steward&) = delete;
  Steward& operator=(const Steward&) = delete;

  // Empty, with errno: there is none, or it cannot be.
  base::Fd open_image(const std::string& name) const;
  // A copy of a descriptor of that process.
  base::Fd fetch(int pidfd, int fd) const;
  // A mapping of the calling process ("START-END") as a file. Empty, with errno.
  base::Fd open_mapping(const std::string& range, int flags) const;
  // False, with errno.
  bool set_option(int socket, int level, int option, int value) const;
  // Of the calling process.
  bool raise_hard_limit(int resource, rlim_t limit) const;
  bool set_attribute(const char* file, const std::string& value) const;  // one of /proc/PID

 private:
  static const Steward* current_;

  base::Fd line_;
  pid_t pid_;
};

}  // namespace criu::namespaces
