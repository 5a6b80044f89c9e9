// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/ipc_objects.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

void save_desc(const Users& users, const ipc_perm& perm, int id, images::ipc_desc_entry& desc) {
  desc.set_key(static_cast<std::uint32_t>(perm.__key));
  desc.set_uid(users.user(perm.uid));
  desc.set_gid(users.group(perm.gid));
  desc.set_cuid(users.user(perm.cuid));
  desc.set_cgid(users.group(perm.cgid));
  desc.set_mode(perm.mode);
  desc.set_id(static_cast<std::uint32_t>(id));
}

std::string name_object(const char* kind, const images::ipc_desc_entry& desc) {
  return desc.key() == 0 ? fmt::format("{} {}", kind, desc.id())
                         : fmt::format("{} {} (key {:#x})", kind, desc.id(), desc.key());
}

void check_desc(const images::ipc_desc_entry& desc, const char* image) {
  if (desc.id() > 0x7fffffff) {
    throw Error("corrupt image", fmt::format("{}: id {}", image, desc.id()), 0);
  }
}

bool is_same(const ipc_perm& perm, const images::ipc_desc_entry& desc) {
  return static_cast<std::uint32_t>(perm.__key) == desc.key() && perm.cuid == desc.cuid() && perm.cgid == desc.cgid();
}

void set_next_id(const char* kind, std::uint32_t id) {
  const auto path = fmt::format("/proc/sys/kernel/{}_next_id", kind);
  const base::Fd file(check(::open(path.c_str(), O_WRONLY | O_CLOEXEC), "open", path,
                            "ids of System V objects need a kernel with CONFIG_CHECKPOINT_RESTORE, and a writable "
                            "/proc/sys"));
  const auto text = std::to_string(id);
  check(::write(file.get(), text.data(), text.size()), "write", path);
}

// Raw calls: the C library's would change all threads of this process.
Creator::Creator(const images::ipc_desc_entry& desc)
    : uid_(::geteuid()), gid_(::getegid()), changed_(desc.cuid() != uid_ || desc.cgid() != gid_) {
  if (changed_) {
    check(::syscall(SYS_setresgid, -1, desc.cgid(), -1), "take on the group of a creator");
    if (::syscall(SYS_setresuid, -1, desc.cuid(), -1) < 0) {
      const int error = errno;
      ::syscall(SYS_setresgid, -1, gid_, -1);
      throw Error("take on the ids of a creator", {}, error);
    }
  }
}

Creator::~Creator() {
  if (changed_) {
    const int error = errno;
    ::syscall(SYS_setresuid, -1, uid_, -1);
    ::syscall(SYS_setresgid, -1, gid_, -1);
    errno = error;
  }
}

}  // namespace criu::namespaces
