// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/names.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/mount.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>

#include "base/error.hpp"
#include "base/kernel.hpp"
#include "files/common.hpp"
#include "files/kind.hpp"
#include "kernel/procfs.hpp"
#include "restore_context.hpp"
#include "sockets/diag.hpp"

namespace criu::sockets {

using base::check;
using base::Error;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view deleted_mark = " (deleted)";

bool is_path(const std::string& name) { return !name.empty() && name.front() != '\0'; }

// The kernel counts the byte that ends a path.
// Up to its first zero.
std::string path_in(const std::string& name) { return name.c_str(); }  // NOLINT(readability-redundant-string-cstr)

std::string link_of(int fd) {
  std::string text(4200, '\0');
  const auto size = check(::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), text.data(), text.size()),
                          "read the path of a socket");
  text.resize(static_cast<std::size_t>(size));
  return text;
}

// The file of a bound socket, whatever became of its name.
base::Fd file_of(int fd, const std::string& what) {
  return base::Fd(check(::ioctl(fd, base::kernel::unix_sock_file), "find the file of", what));
}

// Where a socket with this entry belongs.
std::string full_path(const images::unix_sk_entry& entry) {
  const auto path = path_in(entry.name());
  return path.starts_with('/') ? path : (fs::path(entry.name_dir()) / path).lexically_normal().string();
}

// Removes a socket file that no socket stands behind any more; what else is there is in the way.
void remove_stale(const std::string& path, Diagnostics& diagnostics) {
  struct stat stat {};
  if (::lstat(path.c_str(), &stat) < 0) {
    return;
  }
  if (!S_ISSOCK(stat.st_mode)) {
    throw Error("cannot restore", "the UNIX socket " + path, EADDRINUSE, "there is a file that is no socket");
  }
  if (diagnostics.is_bound(files::kernel_dev(stat.st_dev), stat.st_ino, path)) {
    throw Error("cannot restore", "the UNIX socket " + path, EADDRINUSE, "another program has a socket of that name");
  }
  check(::unlink(path.c_str()), "remove the old socket", path);
}

// Another root directory for as long as the scope lasts. The restored task gets its own root and directory later.
class OtherRoot {
 public:
  OtherRoot(int root, const std::string& what)
      : before_(check(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "open", "/")) {
    check(::fchdir(root), "enter a directory for", what);
    check(::chroot("."), "change root for", what);
  }
  ~OtherRoot() {
    // Both worked before; a task that were left in the wrong root must not go on.
    if (::fchdir(before_.get()) < 0 || ::chroot(".") < 0) {
      ::_exit(1);
    }
  }
  OtherRoot(const OtherRoot&) = delete;
  OtherRoot& operator=(const OtherRoot&) = delete;

 private:
  base::Fd before_;
};

void bind_now(int fd, const std::string& name, const std::string& what) {
  const auto address = address_of(name);
  const auto hint = errno == EADDRINUSE ? "another program has a socket of that name" : "";
  check(::bind(fd, reinterpret_cast<const sockaddr*>(address.data()), static_cast<socklen_t>(address.size())), "bind",
        what, hint);
}

// Binds below another root, where the directories of the path are made as they are needed.
void bind_below(int root, int fd, const std::string& name, const std::string& what) {
  const OtherRoot other(root, what);
  std::error_code error;
  fs::create_directories((fs::path("/") / path_in(name)).lexically_normal().parent_path(), error);
  bind_now(fd, name, what);
}

// In a file system of its own, which goes with the last of its sockets.
void bind_nowhere(int fd, const std::string& name, const std::string& what) {
  const base::Fd context(
      static_cast<int>(check(::syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC), "make a place for", what)));
  check(::syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), "make a place for", what);
  const base::Fd mount(
      static_cast<int>(check(::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, 0), "make a place for", what)));
  bind_below(mount.get(), fd, name, what);
  const auto path = (fs::path("/") / path_in(name)).lexically_normal().string();
  check(::unlinkat(mount.get(), path.c_str() + 1, 0), "remove the name of", what);
}

// With a name that leads elsewhere than to where its file is to be.
void bind_moved(int fd, const std::string& name, const std::string& place, const std::string& what) {
  std::string scratch = fs::path(place).parent_path() / ".criu-sk-XXXXXX";
  if (::mkdtemp(scratch.data()) == nullptr) {
    throw Error("make a directory for", what, errno);
  }
  const auto clean = [&] {
    std::error_code error;
    fs::remove_all(scratch, error);
  };
  try {
    const base::Fd root(check(::open(scratch.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC), "open", scratch));
    bind_below(root.get(), fd, name, what);
    const auto made = scratch + (fs::path("/") / path_in(name)).lexically_normal().string();
    check(::rename(made.c_str(), place.c_str()), "move the socket", what);
  } catch (...) {
    clean();
    throw;
  }
  clean();
}

void set_permissions(int fd, const images::unix_sk_entry& entry, const std::string& what) {
  const auto file = file_of(fd, what);
  const auto& wanted = entry.file_perms();
  check(::fchownat(file.get(), "", wanted.uid(), wanted.gid(), AT_EMPTY_PATH), "set the owner of", what);
  check(::chmod(fmt::format("/proc/self/fd/{}", file.get()).c_str(), wanted.mode() & 07777), "set the mode of", what);
}

}  // namespace

void save_name(const files::Description& description, const UnixInfo& info, images::unix_sk_entry& entry) {
  entry.set_name(info.name);
  if (!is_path(info.name)) {
    return;
  }
  const auto what = description.what();
  const auto file = file_of(description.own, what);
  struct stat stat {};
  check(::fstat(file.get(), &stat), "look at the file of", what);
  entry.mutable_file_perms()->set_mode(stat.st_mode);
  entry.mutable_file_perms()->set_uid(stat.st_uid);
  entry.mutable_file_perms()->set_gid(stat.st_gid);
  const auto place = link_of(file.get());
  if (stat.st_nlink == 0 || place.ends_with(deleted_mark)) {
    entry.set_deleted(true);
    return;
  }
  const auto path = path_in(info.name);
  if (path.starts_with('/')) {
    struct stat there {};
    if (::stat(path.c_str(), &there) < 0 || there.st_dev != stat.st_dev || there.st_ino != stat.st_ino) {
      entry.set_deleted(true);
      if (::stat(place.c_str(), &there) == 0 && there.st_dev == stat.st_dev && there.st_ino == stat.st_ino) {
        entry.set_moved_to(place);
      }
    }
    return;
  }
  if (const auto tail = "/" + fs::path(path).lexically_normal().string(); place.ends_with(tail)) {
    entry.set_name_dir(place.size() == tail.size() ? "/" : place.substr(0, place.size() - tail.size()));
  } else {
    entry.set_deleted(true);
    entry.set_moved_to(place);
  }
}

Names::Names(const RestoreContext& context) {
  std::map<std::string, const images::unix_sk_entry*> at;
  for (const auto& [key, file] : context.checkpoint.files) {
    if (key.first != images::UNIXSK || (file.usk().uflags() & 1) != 0 || !is_path(file.usk().name())) {
      continue;
    }
    const auto& entry = file.usk();
    if (entry.deleted()) {
      if (entry.has_moved_to()) {
        paths_.push_back(entry.moved_to());
      }
      continue;
    }
    // Who was accepted has the name of the listener, but the listener has the file.
    auto& owner = at[full_path(entry)];
    if (owner == nullptr || (owner->state() != listening && entry.state() == listening)) {
      owner = &entry;
    }
  }
  for (const auto& [path, owner] : at) {
    owners_.insert(owner->id());
    paths_.push_back(path);
  }
  if (!paths_.empty()) {
    Diagnostics diagnostics;
    auto paths = std::move(paths_);
    paths_.clear();  // until all are found to be free
    for (const auto& path : paths) {
      remove_stale(path, diagnostics);
    }
    paths_ = std::move(paths);
  }
}

Names::~Names() {
  try {
    Diagnostics diagnostics;
    for (const auto& path : paths_) {
      remove_stale(path, diagnostics);
    }
  } catch (const Error&) {
    // Somebody else's by now.
  }
}

void Names::bind(int fd, const images::unix_sk_entry& entry, const std::string& what) const {
  const auto& name = entry.name();
  if (name.empty()) {
    return;
  }
  if (!is_path(name)) {
    return bind_now(fd, name, what);
  }
  if (entry.has_moved_to() && entry.deleted()) {
    bind_moved(fd, name, entry.moved_to(), what);
  } else if (!owners_.contains(entry.id())) {
    return bind_nowhere(fd, name, what);
  } else {
    if (!name.starts_with('/')) {
      check(::chdir(entry.name_dir().c_str()), "enter", fmt::format("{} for {}", entry.name_dir(), what));
    }
    bind_now(fd, name, what);
  }
  if (entry.has_file_perms()) {
    set_permissions(fd, entry, what);
  }
}

std::string address_of(const std::string& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.size() > sizeof address.sun_path) {
    throw Error("corrupt checkpoint", "a UNIX socket has a name that is too long", 0);
  }
  std::memcpy(address.sun_path, name.data(), name.size());
  return {reinterpret_cast<const char*>(&address), offsetof(sockaddr_un, sun_path) + name.size()};
}

AnybodyMay::AnybodyMay(const Target& target, const std::string& what) {
  if (!target.file) {
    return;
  }
  struct stat stat {};
  check(::fstat(target.file.get(), &stat), "look at the file of", what);
  path_ = fmt::format("/proc/self/fd/{}", target.file.get());
  mode_ = stat.st_mode & 07777;
  check(::chmod(path_.c_str(), 0777), "set the mode of", what);
}

AnybodyMay::~AnybodyMay() {
  if (!path_.empty()) {
    ::chmod(path_.c_str(), mode_);
  }
}

Target target_of(int fd, const images::unix_sk_entry& entry, const std::string& what) {
  if (!is_path(entry.name())) {
    return {address_of(entry.name()), {}};
  }
  auto file = file_of(fd, what);
  auto address = address_of(fmt::format("/proc/self/fd/{}", file.get()));
  return {std::move(address), std::move(file)};
}

}  // namespace criu::sockets
