// SPDX-License-Identifier: LGPL-2.1-only
#include "files/collect.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "files/common.hpp"
#include "files/owner.hpp"
#include "files/regular.hpp"
#include "files/tty_survey.hpp"
#include "files/unsupported.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

std::string read_link(int dir, const char* name, const std::string& what) {
  std::string text(256, '\0');
  for (;;) {
    const auto size =
        static_cast<std::size_t>(check(::readlinkat(dir, name, text.data(), text.size()), "read link of", what));
    if (size < text.size()) {
      text.resize(size);
      return text;
    }
    text.resize(text.size() * 2);
  }
}

// The text of one fdinfo. Read in one go where it fits, since what lies between two reads is another state.
std::string read_info(int dir, const char* name, const std::string& what) {
  const base::Fd file(check(::openat(dir, name, O_RDONLY | O_CLOEXEC), "open fdinfo of", what));
  char room[4096];
  std::string text;
  for (;;) {
    const auto got = check(::read(file.get(), room, sizeof room), "read fdinfo of", what);
    if (got == 0) {
      return text;
    }
    text.append(room, static_cast<std::size_t>(got));
    if (static_cast<std::size_t>(got) < sizeof room / 2) {
      return text;  // seq_file fills what it is given while it has more
    }
  }
}

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

std::vector<int> list_descriptors(int infos, const std::string& what) {
  base::Fd copy(check(::openat(infos, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open", what));
  const std::unique_ptr<DIR, CloseDirectory> directory(::fdopendir(copy.get()));
  if (directory == nullptr) {
    throw Error("list", what, errno);
  }
  copy.release();
  std::vector<int> numbers;
  while (const auto* entry = ::readdir(directory.get())) {
    int number = 0;
    const std::string_view name = entry->d_name;
    if (std::from_chars(name.data(), name.data() + name.size(), number).ec == std::errc{}) {
      numbers.push_back(number);
    }
  }
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

int mount_of(int fd) {
  struct statx info {};
  return ::statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &info) == 0 ? static_cast<int>(info.stx_mnt_id) : -1;
}

bool shareable(const struct stat& stat) { return !S_ISCHR(stat.st_mode) && !S_ISBLK(stat.st_mode); }

// Locks are recorded with a descriptor of a task.
void refuse_locks_in_flight(const Description& description) {
  if (!description.referrer.empty() && has_locks(description.info)) {
    throw Error("cannot dump", fmt::format("{} holds a file lock, and no task has it open", description.what()), 0);
  }
}

}  // namespace

void Collector::collect_table(pid_t pid, std::uint32_t files_id) {
  const auto what = fmt::format("descriptors of task {}", pid);
  const auto open_dir = [&](const char* name) {
    return base::Fd(
        check(::open(fmt::format("/proc/{}/{}", pid, name).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open", what));
  };
  const auto fds = open_dir("fd"), infos = open_dir("fdinfo");
  const base::Fd pidfd(
      static_cast<int>(check(::syscall(SYS_pidfd_open, pid, 0), "open pidfd of task", std::to_string(pid))));
  auto writer = context_.images.create(image::type::fdinfo, files_id);
  for (const int fd : list_descriptors(infos.get(), what)) {
    context_.attempt([&] { collect_descriptor({pid, files_id, fds.get(), infos.get(), pidfd.get()}, fd, writer); });
  }
  writer.finish();
}

void Collector::collect_descriptor(const Table& from, int fd, image::Writer& writer) {
  const auto pid = from.pid;
  char name[16];
  *std::to_chars(name, name + sizeof name - 1, fd).ptr = '\0';
  Description description{
      pid, fd, {}, {}, kernel::parse_fdinfo(read_info(from.infos, name, fmt::format("fd {} of task {}", fd, pid))), -1};
  const bool cloexec = (description.info.flags & O_CLOEXEC) != 0;
  const auto fresh = saver_.new_file_id();
  const auto id = saver_.registry().identify({pid, fd}, description.info, fresh);
  auto& table = saver_.registry().table(pid);
  table.by_fd[fd] = id;
  table.by_id.emplace(id, fd);
  if (has_locks(description.info)) {
    context_.attempt([&] {
      const auto what = fmt::format("fd {} of task {} ({})", fd, pid, read_link(from.fds, name, description.what()));
      saver_.locks().collect(context_, {pid, fd}, id, from.files_id, description.info, what);
    });
  }
  if (id == fresh) {
    types_[id] = images::UND;
    description.link = read_link(from.fds, name, description.what());
    const base::Fd own(
        static_cast<int>(check(::syscall(SYS_pidfd_getfd, from.pidfd, fd, 0), "fetch", description.what())));
    description.own = own.get();
    check(::fstat(own.get(), &description.stat), "stat", description.what());
    types_[id] = save(description, id);
    save_in_flight();
  } else {
    saver_.give_back(fresh);
  }
  const auto type = types_.at(id);
  if (type == images::UND) {
    return;
  }
  images::fdinfo_entry entry;
  entry.set_id(id);
  entry.set_flags(cloexec ? FD_CLOEXEC : 0);
  entry.set_type(type);
  entry.set_fd(static_cast<std::uint32_t>(fd));
  writer.write(entry);
}

void Collector::save_in_flight() {
  for (auto waiting = saver_.take_in_flight(); !waiting.empty(); waiting = saver_.take_in_flight()) {
    for (auto& [id, description] : waiting) {
      types_[id] = images::UND;
      context_.attempt([&, id = id, &description = description] { types_[id] = save(description, id); });
    }
  }
}

images::fd_types Collector::save(Description& description, std::uint32_t id) {
  const Kind* kind = nullptr;
  for (const auto* candidate : kinds()) {
    if (candidate->recognise != nullptr && candidate->recognise(description)) {
      kind = candidate;
      break;
    }
  }
  if (kind == nullptr) {
    throw Error("not supported by this version",
                fmt::format("{} is {}", description.what(), name_unsupported(description)), 0);
  }
  refuse_locks_in_flight(description);
  images::file_entry entry;
  entry.set_type(kind->type);
  entry.set_id(id);
  if (kind->owner != nullptr) {
    save_owner(context_, description.own, *kind->owner(entry));
  }
  kind->save(saver_, description, entry);
  if (kind->type == images::REG && shareable(description.stat)) {
    by_inode_.emplace(Inode{description.stat.st_dev, description.stat.st_ino, description.info.mnt_id},
                      Reference{id, false});
  } else if (kind->type == images::MEMFD) {
    by_inode_.emplace(Inode{description.stat.st_dev, description.stat.st_ino, description.info.mnt_id},
                      Reference{id, true});
  }
  if (kind->save_late != nullptr) {
    late_.push_back({kind, std::move(description), std::move(entry)});
    late_.back().description.own = -1;
  } else {
    saver_.put(entry);
  }
  return kind->type;
}

Collector::Reference Collector::refer(Description& description) {
  check(::fstat(description.own, &description.stat), "stat", description.what());
  description.info.mnt_id = mount_of(description.own);
  const Inode inode{description.stat.st_dev, description.stat.st_ino, description.info.mnt_id};
  if (shareable(description.stat)) {
    if (const auto known = by_inode_.find(inode); known != by_inode_.end()) {
      return known->second;
    }
  }
  images::file_entry entry;
  entry.set_id(saver_.new_file_id());
  Reference reference{entry.id(), memory::is_memory_object(description.link, description.stat)};
  images::fown_entry nobody;
  nobody.set_uid(0);
  nobody.set_euid(0);
  nobody.set_signum(0);
  nobody.set_pid_type(0);
  nobody.set_pid(0);
  if (reference.memfd) {
    entry.set_type(images::MEMFD);
    auto& memfd = *entry.mutable_memfd();
    memfd.set_id(entry.id());
    memfd.set_flags(0);
    memfd.set_pos(0);
    *memfd.mutable_fown() = nobody;
    memfd.set_inode_id(
        saver_.shared_objects().save(description.own, description.stat, description.link, description.what()));
  } else {
    if (!description.link.starts_with('/')) {
      throw Error("not supported by this version",
                  fmt::format("{} is {}", description.what(), name_unsupported(description)), 0);
    }
    entry.set_type(images::REG);
    *entry.mutable_reg()->mutable_fown() = nobody;
    save_path(saver_, description, entry);
  }
  saver_.put(entry);
  if (shareable(description.stat)) {
    by_inode_.emplace(inode, reference);
  }
  return reference;
}

std::uint32_t Collector::reference(const procfs::Task& task, const char* link) {
  Description description{task.pid(), -1, task.link(link), {}, {}, -1};
  description.referrer = fmt::format("{} of task {} ({})", link, task.pid(), description.link);
  // The executable is read for its build id; a directory may forbid to be opened.
  const bool program = std::string_view(link) == "exe";
  const auto own = task.open(link, (program ? O_RDONLY : O_PATH) | O_CLOEXEC);
  description.own = own.get();
  return refer(description).id;
}

std::uint32_t mapping_access(pid_t pid, const procfs::Area& area) {
  // Mapped after the file was sealed, or with a descriptor that could not write.
  if (!area.flags.empty() && !area.has("mw")) {
    return O_RDONLY;
  }
  // The permissions of the link are the modes that the file was opened with.
  const auto path = fmt::format("/proc/{}/map_files/{:x}-{:x}", pid, area.start, area.end);
  struct stat link {};
  check(::lstat(path.c_str(), &link), "look at", fmt::format("{} ({})", path, area.name));
  return (link.st_mode & S_IWUSR) == 0 ? O_RDONLY : (link.st_mode & S_IRUSR) == 0 ? O_WRONLY : O_RDWR;
}

MappingReference Collector::reference_mapping(pid_t pid, const procfs::Area& area) {
  const auto range = fmt::format("{:x}-{:x}", area.start, area.end);
  const auto what = fmt::format("mapping {} of task {} ({})", range, pid, area.name);
  if (area.name.starts_with("socket:[")) {
    throw Error("not supported by this version",
                what + " is the ring of a packet socket, or where TCP receives without a copy", 0);
  }
  const auto path = fmt::format("/proc/{}/map_files/{}", pid, range);
  const auto access = area.shared ? mapping_access(pid, area) : std::uint32_t{O_RDONLY};
  const std::tuple key{area.dev_major, area.dev_minor, area.inode, area.name};
  auto known = by_area_.find(key);
  if (known == by_area_.end()) {
    const auto mode = (area.name.starts_with("/dev/") && !area.name.ends_with(" (deleted)") ? O_PATH : O_RDONLY) |
                      O_NOCTTY | O_NONBLOCK;
    base::Fd own(::open(path.c_str(), mode | O_CLOEXEC));
    if (!own && errno == EPERM) {
      throw Error("open", what, errno, "needs CAP_CHECKPOINT_RESTORE outside of all user namespaces");
    }
    check(own.get(), "open", what);
    Description description{pid, -1, read_link(AT_FDCWD, path.c_str(), what), {}, {}, own.get()};
    description.referrer = what;
    known = by_area_.emplace(key, refer(description)).first;
  }
  return {known->second.id, known->second.memfd, access};
}

void Collector::finish() {
  for (auto& late : late_) {
    context_.attempt([&] {
      late.kind->save_late(saver_, late.description, late.entry);
      saver_.put(late.entry);
    });
  }
  late_.clear();
  context_.attempt([&] { saver_.refuse_autofs(); });
  context_.attempt([&] { saver_.terminals().check_sessions(saver_); });
  saver_.finish();
}

}  // namespace criu::files
