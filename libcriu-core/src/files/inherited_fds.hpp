// SPDX-License-Identifier: LGPL-2.1-only
// Descriptors that the caller of a restore gives for what the tree had from outside (--inherit-fd).
#pragma once

#include <string>
#include <unordered_map>

#include "base/fd.hpp"

namespace criu {

struct RestoreContext;

namespace files {

class InheritedFds {
 public:
  InheritedFds() = default;
  // Takes them into the restore's own range; the numbers they came under are free then.
  explicit InheritedFds(const RestoreContext&);

  bool empty() const { return by_key_.empty(); }
  // -1: none was given. Of several with one key the one that can be read from and written to as `access` wants.
  int find(const std::string& key, int access) const;
  int find(const std::string& key) const;
  // When all tasks have what they need.
  void let_go() { by_key_.clear(); }

 private:
  std::unordered_multimap<std::string, base::Fd> by_key_;
};

// A descriptor that was given is used as it is: its position and flags are the caller's.
base::Fd copy_inherited(int fd, const std::string& what);

}  // namespace files
}  // namespace criu
