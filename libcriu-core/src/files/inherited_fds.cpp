// SPDX-License-Identifier: LGPL-2.1-only
#include "files/inherited_fds.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "base/error.hpp"
#include "log.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;

InheritedFds::InheritedFds(const RestoreContext& context) {
  for (const auto& [key, fd] : context.options.inherit_fds) {
    const auto what = "--inherit-fd fd[" + std::to_string(fd) + "]:" + key;
    LOG_INFO("File {} will be restored from inherit fd {}", key, fd);
    by_key_.emplace(key, base::Fd(check(::fcntl(fd, F_DUPFD_CLOEXEC, context.first_internal_fd), "take over", what)));
  }
  // A pipe that we kept open would have one writer too many. The standard streams are never left closed: whatever is
  // opened next would be taken for them.
  for (const auto& [key, fd] : context.options.inherit_fds) {
    if (fd > STDERR_FILENO) {
      ::close(fd);
      continue;
    }
    const base::Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    if (null && !(fd == STDERR_FILENO && log::is_stderr())) {
      ::dup2(null.get(), fd);
    }
  }
}

int InheritedFds::find(const std::string& key) const {
  const auto found = by_key_.find(key);
  return found == by_key_.end() ? -1 : found->second.get();
}

int InheritedFds::find(const std::string& key, int access) const {
  const auto [begin, end] = by_key_.equal_range(key);
  for (auto at = begin; at != end; ++at) {
    const int has = ::fcntl(at->second.get(), F_GETFL) & O_ACCMODE;
    if (has == access || has == O_RDWR) {
      return at->second.get();
    }
  }
  return -1;
}

base::Fd copy_inherited(int fd, const std::string& what) {
  return base::Fd(check(::fcntl(fd, F_DUPFD_CLOEXEC, 0), "copy the descriptor given for", what));
}

}  // namespace criu::files
