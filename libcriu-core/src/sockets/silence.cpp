// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/silence.hpp"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <unordered_set>

#include "log.hpp"
#include "restore_context.hpp"
#include "sockets/call.hpp"
#include "sockets/diag.hpp"
#include "sockets/soccr_call.hpp"

namespace criu::sockets {

using base::check;

Silence::Silence(RestoreContext& context) : context_(context) {
  const auto& inventory = context.checkpoint.inventory;
  method_ = static_cast<NetworkLockMethod>(inventory.network_lock_method());
  const auto ends = context.objects.tcp.ends();
  if (ends.empty() || method_ >= NetworkLockMethod::skip) {
    return;
  }
  name_ = lock_name(inventory.dump_criu_run_id(), context.checkpoint.root().pid());
  left_by_dump_ = lock_exists(method_, name_);
  if (!left_by_dump_) {
    own_ = std::make_unique<NetworkLock>(method_, ends);
  }
}

Silence::~Silence() = default;

void Silence::resume(pid_t pid, int fd, const images::inet_sk_entry& entry) {
  const auto what = fmt::format("fd {} of task {} (port {})", fd, pid, entry.src_port());
  const base::Fd pidfd(static_cast<int>(check(::syscall(SYS_pidfd_open, pid, 0), "open pidfd for", what)));
  const base::Fd socket(static_cast<int>(check(::syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0), "fetch", what)));
  if (entry.state() == syn_sent) {
    Soccr(socket.get(), *context_.objects.tcp.find(entry.id()), what).resume(0);
  } else {
    Soccr(socket.get(), what).resume(0);
  }
  // The kernel clears it with the hold.
  if (entry.opts().reuseaddr()) {
    set(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1, what);
  }
}

void Silence::end() {
  own_.reset();
  if (left_by_dump_) {
    remove_lock(method_, name_, context_.objects.tcp.ends());
  }
  std::unordered_set<std::uint32_t> done;
  for (const auto& task : context_.checkpoint.tasks) {
    for (const auto& fd : task->fds) {
      if (fd.type() != images::INETSK || context_.objects.tcp.find(fd.id()) == nullptr ||
          !done.insert(fd.id()).second) {
        continue;
      }
      // The tree runs in any case; what one connection needs must not stop the others.
      try {
        resume(task->pid(), static_cast<int>(fd.fd()),
               context_.checkpoint.file(images::INETSK, fd.id(), task->name()).isk());
      } catch (const base::Error& error) {
        LOG_ERROR("{}", error.what());
      }
    }
  }
}

}  // namespace criu::sockets
