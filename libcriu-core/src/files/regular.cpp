// SPDX-License-Identifier: LGPL-2.1-only
#include "files/regular.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstring>

#include "files/build_id.hpp"
#include "files/common.hpp"
#include "files/external.hpp"
#include "files/gone_process.hpp"
#include "files/place.hpp"
#include "files/saver.hpp"
#include "namespaces/mount_sources.hpp"
#include "namespaces/restored_mounts.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// ---- dump ----

// Not in any header.
constexpr decltype(statfs::f_type) mqueue_magic = 0x19800202;

bool same_inode(const struct stat& a, const struct stat& b) { return a.st_dev == b.st_dev && a.st_ino == b.st_ino; }

// Of a tree with several mount namespaces: of the one that the file is in.
int root_for(Saver& saver, const Description& description) {
  const auto* mounts = saver.dump().mounts;
  return mounts == nullptr ? AT_FDCWD : mounts->root_of(description.info.mnt_id);
}

bool leads_to(const Place& place, const struct stat& stat) {
  struct stat found {};
  if (::fstatat(place.root, place.name(), &found, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0) {
    return false;
  }
  const auto& path = place.path;
  // The inodes of /proc come and go with its cache. Those of a process do so with it, and its pid may be another's now.
  return same_inode(found, stat) ||
         (path.starts_with("/proc/") && found.st_dev == stat.st_dev && told_of(path).process == 0);
}

// How --external and --inherit-fd name an open file.
std::string external_key(const Description& description) {
  return fmt::format("file[{:x}:{:x}]", description.info.mnt_id, description.stat.st_ino);
}

bool is_device(const struct stat& stat) { return S_ISCHR(stat.st_mode) || S_ISBLK(stat.st_mode); }

// Another node of the same device.
std::string evade(const struct stat& stat) {
  for (const char* name : {"null", "zero", "full", "random", "urandom", "mem", "port", "kmsg"}) {
    struct stat found {};
    auto path = std::string("/dev/") + name;
    if (::stat(path.c_str(), &found) == 0 && found.st_rdev == stat.st_rdev &&
        (found.st_mode & S_IFMT) == (stat.st_mode & S_IFMT)) {
      return path;
    }
  }
  const auto path = fmt::format("/dev/{}/{}:{}", S_ISCHR(stat.st_mode) ? "char" : "block", gnu_dev_major(stat.st_rdev),
                                gnu_dev_minor(stat.st_rdev));
  char real[PATH_MAX];
  return ::realpath(path.c_str(), real) != nullptr ? real : "";
}

// The path to record; where it does not lead to the file any more, what is needed to have the file again.
std::string find_name(Saver& saver, const Description& description, std::uint32_t id) {
  constexpr std::string_view deleted = " (deleted)";
  const auto& stat = description.stat;
  auto name = description.link;
  const Place place{root_for(saver, description), name};
  // A name may really end like that; only a look tells.
  if (leads_to(place, stat)) {
    return name;
  }
  const bool marked = name.ends_with(deleted);
  if (marked) {
    name.resize(name.size() - deleted.size());
  }
  if (is_device(stat) && saver.dump().options.evasive_devices) {
    if (auto other = evade(stat); !other.empty()) {
      return other;
    }
  }
  const auto what = description.what();
  // The restore opens it from the root of its mount.
  if (!marked && stat.st_nlink != 0 && saver.dump().mounts != nullptr &&
      saver.dump().mounts->is_covered(description.info.mnt_id, name)) {
    return name;
  }
  if (name.starts_with("/proc/")) {
    save_gone_process(saver, description, id, name);
    return name;
  }
  struct statfs fs {};
  if (::fstatfs(description.own, &fs) == 0 && fs.f_type == mqueue_magic) {
    throw Error("not supported by this version", what + " is a message queue", 0);
  }
  const Nameless file{id, description.own, stat, place.with(name), description.info.mnt_id, what};
  if (stat.st_nlink == 0 || (S_ISDIR(stat.st_mode) && marked)) {
    saver.removed().save_ghost(saver, file);
  } else if (S_ISDIR(stat.st_mode)) {
    throw Error("cannot dump", what + ": its path leads elsewhere", 0, "is it on a mount that is hidden or unmounted?");
  } else {
    saver.removed().save_link(saver, file);
  }
  return name;
}

// A file of /proc that tells of a process. Processes exist when files are made, their further threads do not.
void refuse_thread(const Description& description) {
  const auto told = told_of(description.link);
  if (told.thread != 0 && told.thread != told.process) {
    throw Error("cannot dump",
                fmt::format("{}: it tells of a thread that is not the first of its process", description.what()), 0);
  }
}

void refuse_device(const Description& description) {
  constexpr unsigned memory_devices = 1;
  const auto major = gnu_dev_major(description.stat.st_rdev), minor = gnu_dev_minor(description.stat.st_rdev);
  if (!S_ISCHR(description.stat.st_mode) || (description.info.flags & O_PATH) != 0 || major == memory_devices) {
    return;
  }
  const bool fuse = major == 10 && minor == 229;
  throw Error("not supported by this version",
              fmt::format("{} is {}", description.what(),
                          fuse ? "the connection of a FUSE filesystem"
                               : fmt::format("the device {}:{}, whose state is not known", major, minor)),
              0, fmt::format("--external '{}' leaves it to the restore's --inherit-fd", external_key(description)));
}

// A file that is not the tree's own: all that is said of it is by which name the restore is to be given another.
void save_external(const Description& description, images::file_entry& entry) {
  auto& reg = *entry.mutable_reg();
  reg.set_id(entry.id());
  reg.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  reg.set_pos(static_cast<std::uint64_t>(description.info.pos));
  reg.set_name(external_key(description));
  reg.set_mode(description.stat.st_mode);
  reg.set_ext(true);
}

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  if (!saver.dump().options.external.empty() && is_external(saver.dump().options, external_key(description))) {
    return save_external(description, entry);
  }
  refuse_device(description);
  refuse_thread(description);
  if (description.info.pos != 0 && description.link.starts_with("/proc/")) {
    refuse_in_flight(description);
  }
  save_path(saver, description, entry);
}

// ---- restore ----

void check_build_id(const RestoreContext& context, int fd, const images::reg_file_entry& entry) {
  if (context.options.file_validation != FileValidation::build_id || entry.build_id_size() == 0) {
    return;
  }
  // The descriptor may be one that cannot be read from.
  const base::Fd reader(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC));
  const auto now = reader ? read_build_id(reader.get()) : std::vector<std::uint32_t>{};
  if (!now.empty() && !std::equal(now.begin(), now.end(), entry.build_id().begin(), entry.build_id().end())) {
    throw Error("file changed since the dump",
                fmt::format("File {} has another build id: it was built anew", entry.name()), 0,
                "--file-validation filesize accepts it if it has the same size");
  }
}

// A file that changed since the dump would be mapped or read as if it were the old one.
void check_same(const RestoreContext& context, int fd, const images::reg_file_entry& entry) {
  struct stat st {};
  check(::fstat(fd, &st), "stat", entry.name());
  if (entry.has_size() && static_cast<std::uint64_t>(st.st_size) != entry.size()) {
    throw Error("file changed since the dump",
                fmt::format("File {} has bad size {} (expect {})", entry.name(), st.st_size, entry.size()), 0);
  }
  if (entry.has_mode() && (st.st_mode & S_IFMT) != (entry.mode() & S_IFMT)) {
    throw Error("file changed since the dump",
                fmt::format("File {} has bad mode {:#o} (expect {:#o})", entry.name(), st.st_mode, entry.mode()), 0);
  }
  if (entry.has_mode() && !context.options.skip_file_rwx_check && st.st_mode != entry.mode()) {
    throw Error("file changed since the dump",
                fmt::format("File {} has bad mode {:#o} (expect {:#o})", entry.name(), st.st_mode, entry.mode()), 0,
                "--skip-file-rwx-check accepts other permissions");
  }
  if (S_ISREG(st.st_mode)) {
    check_build_id(context, fd, entry);
  }
}

base::Fd open_checked(const RestoreContext& context, const images::reg_file_entry& entry, int flags) {
  if (entry.ext()) {
    throw Error("cannot restore", fmt::format("file {} is external", entry.id()), 0,
                fmt::format("--inherit-fd 'fd[N]:{}' gives it", entry.name()));
  }
  if (entry.name().empty() || entry.name().front() != '/' || entry.name().find('\0') != std::string::npos) {
    throw Error("corrupt checkpoint", fmt::format("file {} has the path '{}'", entry.id(), entry.name()), 0);
  }
  // Whatever it was made with: nothing is made here. A file without a name was opened as a directory, by its flags.
  if ((flags & O_TMPFILE) == O_TMPFILE) {
    flags &= ~O_TMPFILE;
  }
  flags &= ~(O_CREAT | O_EXCL | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY));
  base::Fd fd;
  if (const int removed = context.objects.remaps.find(entry.id()); removed >= 0) {
    fd = reopen(removed, flags & ~O_NOFOLLOW, entry.name());
  } else {
    // A link that stood for itself was opened without following it.
    const bool link = entry.has_mode() && S_ISLNK(entry.mode());
    const auto place = place_of(context, entry);
    fd = base::Fd(
        check(::openat(place.root, place.name(), flags | O_NOCTTY | (link ? O_NOFOLLOW : 0)), "open", entry.name()));
  }
  check_same(context, fd.get(), entry);
  return fd;
}

bool has_position(const images::reg_file_entry& entry) {
  return (entry.flags() & O_PATH) == 0 && entry.pos() != ~std::uint64_t{0} && entry.pos() != 0;
}

// Of a file of /proc, whose contents are made up while it is read: a position is a place in what was told last. What
// tells of a task is right only when the task is; what tells of one that is gone never again.
bool is_told_position(const RestoreContext& context, const images::reg_file_entry& entry) {
  return entry.name().starts_with("/proc/") && !context.objects.remaps.is_gone(told_of(entry.name()).process);
}

void finish(RestoreContext& context, const Made& made) {
  const auto& entry = made.entry->reg();
  if (is_told_position(context, entry)) {
    check(::lseek(made.fd, static_cast<off_t>(entry.pos()), SEEK_SET), "seek", entry.name());
  }
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->reg();
  const auto key = entry.name().starts_with('/') ? entry.name().substr(1) : entry.name();
  if (const int given = context.objects.inherited.find(key); given >= 0) {
    return one(copy_inherited(given, entry.name()));
  }
  auto fd = open_checked(context, entry, static_cast<int>(entry.flags()) | O_CLOEXEC);
  if (has_position(entry) && !is_told_position(context, entry)) {
    check(::lseek(fd.get(), static_cast<off_t>(entry.pos()), SEEK_SET), "seek", entry.name());
  }
  return one(std::move(fd));
}

}  // namespace

void save_path(Saver& saver, const Description& description, images::file_entry& entry) {
  const auto flags = description.info.flags & ~static_cast<unsigned>(O_CLOEXEC);
  auto& reg = *entry.mutable_reg();
  reg.set_id(entry.id());
  reg.set_flags(flags);
  reg.set_pos(static_cast<std::uint64_t>(description.info.pos));
  reg.set_name(find_name(saver, description, entry.id()));
  reg.set_mode(description.stat.st_mode);
  if (saver.dump().mounts != nullptr) {
    reg.set_mnt_id(description.info.mnt_id);
  }
  if (!S_ISREG(description.stat.st_mode)) {
    return;
  }
  // A file that is only appended to may have grown by others' doing.
  if ((flags & O_ACCMODE) != O_WRONLY || (flags & O_APPEND) == 0) {
    reg.set_size(static_cast<std::uint64_t>(description.stat.st_size));
  }
  // Files of /proc, /sys and the like occupy no blocks, and reading some of them takes something away.
  if (description.stat.st_size > 0 && description.stat.st_blocks > 0) {
    for (const auto word : read_build_id(description.own)) {
      reg.add_build_id(word);
    }
  }
}

Place place_of(const RestoreContext& context, const images::reg_file_entry& entry) {
  return context.mounts == nullptr || !entry.has_mnt_id() ? Place{AT_FDCWD, entry.name()}
                                                          : context.mounts->find(entry.mnt_id(), entry.name());
}

base::Fd open_path(const RestoreContext& context, std::uint32_t id, int flags, const std::string& referrer) {
  if (const auto* memory_file = context.checkpoint.find_file(images::MEMFD, id)) {
    const auto& object = context.shared_objects.memfd(memory_file->memfd().inode_id(), referrer);
    return context.internal(reopen(object.fd.get(), flags, referrer));
  }
  const auto& entry = context.checkpoint.file(images::REG, id, referrer);
  return context.internal(open_checked(context, entry.reg(), flags | O_CLOEXEC));
}

const Kind regular_kind = {
    .type = images::REG,
    .name = "regular file",
    .recognise =
        [](const Description& description) {
          return description.link.starts_with('/') &&
                 (!S_ISSOCK(description.stat.st_mode) || (description.info.flags & O_PATH) != 0);
        },
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_reg()->mutable_fown(); },
    .make = make,
    .finish = finish,
    .is_late =
        [](const images::file_entry& entry) {
          return has_position(entry.reg()) && entry.reg().name().starts_with("/proc/");
        },
};

}  // namespace criu::files
