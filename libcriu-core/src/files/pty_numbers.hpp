// SPDX-License-Identifier: LGPL-2.1-only
// Ptys with given numbers. The kernel numbers them itself, the lowest that is free: so they are opened until those that
// are wanted have come by.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "base/fd.hpp"

namespace criu {

struct RestoreContext;

namespace files {

class PtyNumbers {
 public:
  explicit PtyNumbers(const RestoreContext& context) : context_(context) {}

  // The pty with this number of the devpts that this ptmx belongs to; `what` names it in messages.
  void want(unsigned number, const std::string& ptmx, const std::string& what);

  enum class Taken { fails, another };  // what to do about numbers that others have
  // Their masters, in the order in which they were wanted.
  std::vector<base::Fd> make(Taken);

 private:
  struct Wish {
    std::size_t position;
    std::string ptmx, what;
  };
  using Wishes = std::map<unsigned, Wish>;

  void make(Wishes&, Taken, std::vector<base::Fd>& made) const;

  const RestoreContext& context_;
  std::map<unsigned long, Wishes> wishes_;  // by devpts, then by number
  std::size_t count_ = 0;
};

// The ptmx for a slave with this path.
std::string ptmx_beside(const std::string& slave);

}  // namespace files
}  // namespace criu
