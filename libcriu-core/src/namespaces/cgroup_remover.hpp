// SPDX-License-Identifier: LGPL-2.1-only
// Removes the control groups that a restore has made, unless that succeeds: also if it is killed.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <utility>

#include "base/fd.hpp"
#include "restore_context.hpp"

namespace criu::namespaces {

// A process of its own, which learns of each group before it is made, and of the end of the restore.
class CgroupRemover {
 public:
  using Place = std::pair<std::string, std::string>;  // a hierarchy, and a path in it without the first slash

  // `remove` is called there.
  CgroupRemover(const RestoreContext&, const std::function<void(const Place&)>& remove);
  // When they are gone, if nobody wants to keep them. All tasks of the restore have ended, or are about to.
  ~CgroupRemover();
  CgroupRemover(const CgroupRemover&) = delete;
  CgroupRemover& operator=(const CgroupRemover&) = delete;

  void note(const Place&);
  // The one that was noted last could not be made.
  void forget_last();
  void keep();

 private:
  void tell(char what, const std::string& more = {});
  void await_end();

  base::Fd line_;  // whose end, when this process and all tasks are gone, tells it of that
  pid_t pid_ = 0;
};

}  // namespace criu::namespaces
