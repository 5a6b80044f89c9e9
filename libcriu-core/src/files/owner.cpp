// SPDX-License-Identifier: LGPL-2.1-only
#include "files/owner.hpp"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.hpp"
#include "namespaces/user.hpp"

namespace criu::files {

using base::check;

namespace {

#ifndef F_GETOWNER_UIDS
#define F_GETOWNER_UIDS 17
#endif

}  // namespace

void read_owner(int fd, images::fown_entry& owner) {
  f_owner_ex who{};
  // O_PATH descriptors have no owner, and say so.
  if (::fcntl(fd, F_GETOWN_EX, &who) < 0) {
    who = {F_OWNER_TID, 0};
  }
  std::uint32_t uids[2] = {0, 0};
  int signo = 0;
  if (who.pid != 0) {
    check(::fcntl(fd, F_GETOWNER_UIDS, uids), "read the owner's ids of a descriptor");
  }
  if (const int got = ::fcntl(fd, F_GETSIG); got > 0) {
    signo = got;
  }
  owner.set_uid(uids[0]);
  owner.set_euid(uids[1]);
  owner.set_signum(static_cast<std::uint32_t>(signo));
  owner.set_pid_type(who.pid != 0 ? static_cast<std::uint32_t>(who.type) : 0);
  owner.set_pid(static_cast<std::uint32_t>(who.pid));
}

void save_owner(const DumpContext& dump, int fd, images::fown_entry& owner) {
  read_owner(fd, owner);
  if (owner.pid() != 0) {  // else there are no ids
    owner.set_uid(dump.users->user(owner.uid()));
    owner.set_euid(dump.users->user(owner.euid()));
  }
}

void restore_owner(int fd, const images::fown_entry& owner) {
  if (owner.signum() != 0) {
    check(::fcntl(fd, F_SETSIG, static_cast<int>(owner.signum())), "set the signal of a descriptor");
  }
  if (owner.pid() == 0) {
    return;
  }
  // The kernel records the caller's ids with the owner and later sends with them.
  uid_t real = 0, effective = 0, saved = 0;
  ::getresuid(&real, &effective, &saved);
  // Raw calls: the C library's would change all threads of this process.
  check(::syscall(SYS_setresuid, owner.uid(), owner.euid(), -1), "take on the ids of a descriptor's owner");
  f_owner_ex who{static_cast<__pid_type>(owner.pid_type()), static_cast<pid_t>(owner.pid())};
  const int result = ::fcntl(fd, F_SETOWN_EX, &who);
  const int error = errno;
  check(::syscall(SYS_setresuid, real, effective, -1), "take back the own ids");
  errno = error;
  check(result, "set the owner of a descriptor");
}

}  // namespace criu::files
