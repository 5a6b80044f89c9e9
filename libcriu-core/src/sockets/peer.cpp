// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/peer.hpp"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>

#include "base/error.hpp"
#include "base/kernel.hpp"
#include "log.hpp"
#include "sockets/call.hpp"

namespace criu::sockets {

namespace {

// Those of this thread: the C library would tell all threads.
int set_user(uid_t user) { return static_cast<int>(::syscall(SYS_setresuid, -1, user, -1)); }
int set_group(gid_t group) { return static_cast<int>(::syscall(SYS_setresgid, -1, group, -1)); }
int set_groups(const std::vector<gid_t>& groups) {
  return static_cast<int>(::syscall(SYS_setgroups, groups.size(), groups.data()));
}

std::vector<gid_t> own_groups() {
  std::vector<gid_t> groups(static_cast<std::size_t>(std::max(::getgroups(0, nullptr), 0)));
  const int count = ::getgroups(static_cast<int>(groups.size()), groups.data());
  groups.resize(static_cast<std::size_t>(std::max(count, 0)));
  return groups;
}

}  // namespace

void save_peer(int fd, images::unix_sk_entry& entry) {
  const auto peer = try_get<ucred>(fd, SOL_SOCKET, SO_PEERCRED);
  if (!peer || peer->uid == static_cast<uid_t>(-1)) {
    return;  // it never had one
  }
  auto& saved = *entry.mutable_peer_creds();
  saved.set_pid(static_cast<std::uint32_t>(peer->pid));
  saved.set_uid(peer->uid);
  saved.set_gid(peer->gid);
  std::vector<gid_t> groups(64);
  socklen_t size = static_cast<socklen_t>(groups.size() * sizeof(gid_t));
  int result = ::getsockopt(fd, SOL_SOCKET, base::kernel::so_peergroups, groups.data(), &size);
  if (result < 0 && errno == ERANGE) {
    groups.resize(size / sizeof(gid_t));
    result = ::getsockopt(fd, SOL_SOCKET, base::kernel::so_peergroups, groups.data(), &size);
  }
  groups.resize(result < 0 ? 0 : size / sizeof(gid_t));
  saved.mutable_groups()->Assign(groups.begin(), groups.end());
}

Guise::Guise(const images::unix_sk_entry& entry, const std::string& what)
    : user_before_(::geteuid()), group_before_(::getegid()) {
  if (entry.has_peer_creds()) {
    const auto& creds = entry.peer_creds();
    const std::vector<gid_t> groups(creds.groups().begin(), creds.groups().end());
    put_on(creds.uid(), creds.gid(), &groups, what);
  }
}

Guise::Guise(uid_t user, gid_t group, const std::string& what) : user_before_(::geteuid()), group_before_(::getegid()) {
  put_on(user, group, nullptr, what);
}

void Guise::put_on(uid_t user, gid_t group, const std::vector<gid_t>* groups, const std::string& what) {
  if (groups != nullptr) {
    if (auto own = own_groups(); own != *groups) {
      groups_before_ = std::move(own);
    }
  }
  on_ = user != user_before_ || group != group_before_ || groups_before_;
  if (!on_) {
    return;
  }
  if ((groups_before_ && set_groups(*groups) < 0) || set_group(group) < 0 || set_user(user) < 0) {
    LOG_WARN("{}: its peer will not be known as user {}, group {}: {}", what, user, group, std::strerror(errno));
  }
}

Guise::~Guise() {
  if (!on_) {
    return;
  }
  // It was allowed to leave them, and so to come back; a task that is somebody else must not go on.
  if (set_user(user_before_) < 0 || set_group(group_before_) < 0 ||
      (groups_before_ && set_groups(*groups_before_) < 0)) {
    ::_exit(1);
  }
  // The kernel takes both away when the user changes.
  ::prctl(PR_SET_DUMPABLE, 1);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
}

void compare_peer(int fd, const images::unix_sk_entry& entry, const std::string& what) {
  if (!entry.has_peer_creds()) {
    return;
  }
  const auto& wanted = entry.peer_creds();
  const auto is = try_get<ucred>(fd, SOL_SOCKET, SO_PEERCRED).value_or(ucred{0, static_cast<uid_t>(-1), 0});
  if (is.uid != wanted.uid() || is.gid != wanted.gid()) {
    LOG_WARN("{}: its peer was user {}, group {} and seems to be user {}, group {} now", what, wanted.uid(),
             wanted.gid(), static_cast<int>(is.uid), is.gid);
  } else if (wanted.pid() != 0 && is.pid != static_cast<pid_t>(wanted.pid())) {
    LOG_INFO("{}: its peer was task {} and seems to be task {} now", what, wanted.pid(), is.pid);
  }
}

bool same_peer(const images::unix_sk_entry& a, const images::unix_sk_entry& b) {
  return a.has_peer_creds() == b.has_peer_creds() &&
         (!a.has_peer_creds() ||
          (a.peer_creds().pid() == b.peer_creds().pid() && a.peer_creds().uid() == b.peer_creds().uid() &&
           a.peer_creds().gid() == b.peer_creds().gid()));
}

}  // namespace criu::sockets
