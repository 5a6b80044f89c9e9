// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/silence.hpp"

#include <fmt/format.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <unordered_set>

#include "files/kind.hpp"
#include "log.hpp"
#include "namespaces/restored_home.hpp"
#include "restore_context.hpp"
#include "sockets/call.hpp"
#include "sockets/diag.hpp"
#include "sockets/soccr_call.hpp"

namespace criu::sockets {

using base::check;

Silence::Silence(RestoreContext& context, const namespaces::RestoredHome& home) : context_(context), home_(home) {
  method_ = static_cast<NetworkLockMethod>(context.checkpoint.inventory.network_lock_method());
  const auto ends = context.objects.tcp.ends();
  if (!ends.empty()) {
    {
      // Among the mounts of the tree there need not be the programs for it.
      const namespaces::RestoredHome::Outside outside(home_, CLONE_NEWNET);
      lock(ends);
    }
    make_carried();
  }
}

void Silence::lock(const std::vector<Connection>& ends) {
  if (method_ >= NetworkLockMethod::skip) {
    return;
  }
  const auto& checkpoint = context_.checkpoint;
  name_ = lock_name(checkpoint.inventory.dump_criu_run_id(), checkpoint.root().pid());
  try {
    // One that is made anew has no lock: that of the dump went with the one before.
    const bool is_new = home_.network() != nullptr && home_.network()->given() < 0;
    left_by_dump_ = !is_new && lock_exists(method_, name_, ends);
  } catch (const base::Error& error) {
    throw base::Error(error.operation(), error.object(), error.code(),
                      "the dump locked the network with nftables, which must be usable here to unlock it");
  }
  if (!left_by_dump_) {
    const auto method = choose_lock(NetworkLockMethod::any);
    if (method == NetworkLockMethod::iptables) {
      remove_stale_locks(method, 0);  // of a restore that was killed
    }
    own_ = std::make_unique<NetworkLock>(method, ends);
    own_->engage();
  }
}

// What no task has open waits in the queue of a socket; nobody can take it from there but who receives it.
void Silence::make_carried() {
  std::unordered_set<std::uint32_t> open;
  for (const auto& task : context_.checkpoint.tasks) {
    for (const auto& fd : task->fds) {
      open.insert(fd.id());
    }
  }
  for (const auto& [key, file] : context_.checkpoint.files) {
    if (key.first == images::INETSK && context_.objects.tcp.find(file.id()) != nullptr && !open.contains(file.id())) {
      const images::file_entry* const entry = &file;
      auto made = files::kind_of(file).make(context_, {&entry, 1});
      context_.objects.carried[file.id()] = context_.internal(std::move(made.front()));
    }
  }
}

Silence::~Silence() {
  if (own_ != nullptr) {
    const namespaces::RestoredHome::Outside outside(home_, CLONE_NEWNET);
    own_.reset();
  }
}

void Silence::resume_in(pid_t pid, int fd, const images::inet_sk_entry& entry) {
  const auto what = fmt::format("fd {} of task {} (port {})", fd, pid, entry.src_port());
  const base::Fd pidfd(static_cast<int>(check(::syscall(SYS_pidfd_open, pid, 0), "open pidfd for", what)));
  const base::Fd socket(static_cast<int>(check(::syscall(SYS_pidfd_getfd, pidfd.get(), fd, 0), "fetch", what)));
  resume(socket.get(), entry, what);
}

void Silence::resume(int fd, const images::inet_sk_entry& entry, const std::string& what) {
  // The tree runs in any case; what one connection needs must not stop the others.
  try {
    if (entry.state() == syn_sent) {
      Soccr(fd, *context_.objects.tcp.find(entry.id()), what).resume(0);
    } else {
      Soccr(fd, what).resume(0);
    }
    // The kernel clears it with the hold.
    if (entry.opts().reuseaddr()) {
      set(fd, SOL_SOCKET, SO_REUSEADDR, 1, what);
    }
  } catch (const base::Error& error) {
    LOG_ERROR("{}", error.what());
  }
}

void Silence::unlock() {
  own_.reset();
  if (left_by_dump_) {
    remove_lock(method_, name_, context_.objects.tcp.ends(), context_.checkpoint.inventory.network_lock_tables());
  }
}

void Silence::end() {
  std::unordered_set<std::uint32_t> done;
  for (const auto& task : context_.checkpoint.tasks) {
    for (const auto& fd : task->fds) {
      if (fd.type() != images::INETSK || context_.objects.tcp.find(fd.id()) == nullptr ||
          !done.insert(fd.id()).second) {
        continue;
      }
      const auto& entry = context_.checkpoint.file(images::INETSK, fd.id(), task->name()).isk();
      try {
        resume_in(task->pid(), static_cast<int>(fd.fd()), entry);
      } catch (const base::Error& error) {
        LOG_ERROR("{}", error.what());
      }
    }
  }
  for (const auto& [id, fd] : context_.objects.carried) {
    const auto& entry = context_.checkpoint.find_file(images::INETSK, id)->isk();
    resume(fd.get(), entry, fmt::format("a queue (port {})", entry.src_port()));
  }
}

}  // namespace criu::sockets
