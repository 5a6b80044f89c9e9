// SPDX-License-Identifier: LGPL-2.1-only
#include "files/removed.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <ghost-file.pb.h>
#include <remap-file-path.pb.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>

#include "files/common.hpp"
#include "files/regular.hpp"
#include "files/saver.hpp"
#include "log.hpp"
#include "namespaces/user.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// From this size on contents are told by their extents, as CRIU does.
constexpr off_t chunks_from = 12288;
constexpr std::size_t piece = 256 << 10;

std::string directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

void put_remap(Saver& saver, std::uint32_t file_id, std::uint32_t remap_id, images::remap_type type) {
  images::remap_file_path_entry remap;
  remap.set_orig_id(file_id);
  remap.set_remap_id(remap_id);
  remap.set_remap_type(type);
  saver.image(image::type::remap_fpath).write(remap);
}

void copy_out(int fd, off_t from, off_t to, image::Writer& writer, const std::string& what) {
  const auto buffer = std::make_unique<std::byte[]>(piece);
  while (from < to) {
    const auto got =
        check(::pread(fd, buffer.get(), std::min(piece, static_cast<std::size_t>(to - from)), from), "read", what);
    if (got == 0) {
      throw Error("read", what + " became shorter meanwhile", 0);
    }
    writer.raw({buffer.get(), static_cast<std::size_t>(got)});
    from += got;
  }
}

void copy_out_extents(int fd, off_t size, image::Writer& writer, const std::string& what) {
  for (off_t at = 0; at < size;) {
    const auto data = ::lseek(fd, at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
      return;
    }
    check(data, "look for data in", what);
    const auto hole = std::min(size, check(::lseek(fd, data, SEEK_HOLE), "look for holes in", what));
    images::ghost_chunk_entry chunk;
    chunk.set_off(static_cast<std::uint64_t>(data));
    chunk.set_len(static_cast<std::uint64_t>(hole - data));
    writer.write(chunk);
    copy_out(fd, data, hole, writer, what);
    at = hole;
  }
}

void set_time(images::timeval& to, const timespec& from) {
  to.set_tv_sec(static_cast<std::uint64_t>(from.tv_sec));
  to.set_tv_usec(static_cast<std::uint64_t>(from.tv_nsec / 1000));
}

images::ghost_file_entry describe(const Nameless& file) {
  const auto& stat = file.stat;
  images::ghost_file_entry ghost;
  ghost.set_uid(stat.st_uid);
  ghost.set_gid(stat.st_gid);
  ghost.set_mode(stat.st_mode);
  ghost.set_dev(kernel_dev(stat.st_dev));
  ghost.set_ino(stat.st_ino);
  if (S_ISCHR(stat.st_mode) || S_ISBLK(stat.st_mode)) {
    ghost.set_rdev(static_cast<std::uint32_t>(stat.st_rdev));
  }
  set_time(*ghost.mutable_atim(), stat.st_atim);
  set_time(*ghost.mutable_mtim(), stat.st_mtim);
  if (S_ISLNK(stat.st_mode)) {
    std::string target(static_cast<std::size_t>(stat.st_size) + 1, '\0');
    const auto size = check(::readlinkat(file.fd, "", target.data(), target.size()), "read", file.what);
    ghost.set_symlnk_target(target.substr(0, static_cast<std::size_t>(size)));
  }
  if (S_ISREG(stat.st_mode) && stat.st_size >= chunks_from) {
    ghost.set_chunks(true);
    ghost.set_size(static_cast<std::uint64_t>(stat.st_size));
  }
  return ghost;
}

}  // namespace

void Removed::save_ghost(Saver& saver, const Nameless& file) {
  const auto key = std::pair{file.stat.st_dev, file.stat.st_ino};
  if (const auto known = ghosts_.find(key); known != ghosts_.end()) {
    return put_remap(saver, file.id, known->second, images::GHOST);
  }
  if (S_ISSOCK(file.stat.st_mode)) {
    throw Error("cannot dump", file.what + ": the path of a removed socket", 0);
  }
  const auto allocated = static_cast<std::uint64_t>(file.stat.st_blocks) * 512;
  if (S_ISREG(file.stat.st_mode) && allocated > saver.dump().options.ghost_limit) {
    throw Error(fmt::format("Can't dump ghost file {} of {} size, increase limit", file.place.path, allocated),
                file.what, 0,
                "it is removed, so its contents have to go into the image; --ghost-limit sets how much may");
  }
  const auto id = static_cast<std::uint32_t>(ghosts_.size() + 1);
  auto ghost = describe(file);
  saver.dump().users->translate(ghost);
  auto writer = saver.dump().images.create(image::type::ghost_file, id);
  writer.write(ghost);
  if (S_ISREG(file.stat.st_mode) && file.stat.st_size > 0 && !saver.dump().look_only) {
    const auto reader = reopen(file.fd, O_RDONLY, file.what);
    if (ghost.chunks()) {
      copy_out_extents(reader.get(), file.stat.st_size, writer, file.what);
    } else {
      copy_out(reader.get(), 0, file.stat.st_size, writer, file.what);
    }
  }
  writer.finish();
  ghosts_[key] = id;
  put_remap(saver, file.id, id, images::GHOST);
}

void Removed::save_link(Saver& saver, const Nameless& file) {
  const auto key = std::pair{file.stat.st_dev, file.stat.st_ino};
  if (const auto known = linked_.find(key); known != linked_.end()) {
    return put_remap(saver, file.id, known->second, images::LINKED);
  }
  if (!saver.dump().options.link_remap) {
    throw Error("cannot dump", fmt::format("{}: its name is gone but it still has others", file.what), 0,
                "--link-remap gives it a new name beside the old one until it is restored");
  }
  if (saver.dump().look_only) {
    return;
  }
  images::file_entry entry;
  entry.set_type(images::REG);
  entry.set_id(saver.new_file_id());
  // The directory may be gone as well.
  std::string name;
  for (auto directory = directory_of(file.place.path);; directory = directory_of(directory)) {
    name = fmt::format("{}/link_remap.{}", directory == "/" ? "" : directory, entry.id());
    const auto link = [&] {
      errno = 0;
      return ::linkat(AT_FDCWD, fmt::format("/proc/self/fd/{}", file.fd).c_str(), file.place.root,
                      file.place.with(name).name(), AT_SYMLINK_FOLLOW);
    };
    int linked = link();
    if (linked < 0 && errno == EOVERFLOW) {  // where root is nobody
      saver.dump().users->run([&] { linked = link(); });
    }
    if (linked == 0) {
      break;
    }
    if (errno != ENOENT || directory == "/") {
      throw Error("link", fmt::format("{} to {}", file.what, name), errno);
    }
  }
  links_.push_back(file.place.with(name));
  auto& reg = *entry.mutable_reg();
  reg.set_id(entry.id());
  reg.set_flags(0);
  reg.set_pos(0);
  auto& owner = *reg.mutable_fown();
  owner.set_uid(0);
  owner.set_euid(0);
  owner.set_signum(0);
  owner.set_pid_type(0);
  owner.set_pid(0);
  reg.set_name(name);
  reg.set_mode(file.stat.st_mode);
  if (saver.dump().mounts != nullptr) {
    reg.set_mnt_id(file.mount);
  }
  if (S_ISREG(file.stat.st_mode)) {
    reg.set_size(static_cast<std::uint64_t>(file.stat.st_size));
  }
  saver.put(entry);
  linked_[key] = entry.id();
  put_remap(saver, file.id, entry.id(), images::LINKED);
}

void Removed::save_process(Saver& saver, std::uint32_t file_id, pid_t pid) {
  if (processes_.insert(pid).second) {
    put_remap(saver, file_id, static_cast<std::uint32_t>(pid), images::PROCFS);
  }
}

Removed::~Removed() {
  for (const auto& link : links_) {
    if (::unlinkat(link.root, link.name(), 0) < 0) {
      LOG_WARN("{} cannot be removed: {}", link.path, std::strerror(errno));
    }
  }
}

// ---- restore ----

namespace {

// Makes missing directories of a path and takes them away again.
class Parents {
 public:
  explicit Parents(const Place& place) {
    const auto& path = place.path;
    for (std::size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
      auto directory = place.with(path.substr(0, slash));
      if (::mkdirat(directory.root, directory.name(), 0700) == 0) {
        made_.push_back(std::move(directory));
      } else if (errno != EEXIST && errno != EROFS) {
        throw Error("make directory", directory.path, errno);
      }
    }
  }
  Parents(const Parents&) = delete;
  Parents& operator=(const Parents&) = delete;
  ~Parents() {
    for (auto directory = made_.rbegin(); directory != made_.rend(); ++directory) {
      ::unlinkat(directory->root, directory->name(), AT_REMOVEDIR);
    }
  }

 private:
  std::vector<Place> made_;
};

// Runs something that must not stop half way in a process of its own, which lives on when this one is killed: it shares
// our memory and descriptors, and we wait. For the time before there are tasks, whose pids it could take.
class Undivided {
 public:
  explicit Undivided(const std::function<void()>& action) : action_(action), stack_(new std::byte[stack_size]) {
    const auto pid =
        check(::clone(&Undivided::run, stack_.get() + stack_size, CLONE_VM | CLONE_VFORK | CLONE_FILES, this),
              "start a process that is not killed with this one");
    while (::waitpid(pid, nullptr, __WCLONE) < 0 && errno == EINTR) {
    }
    if (thrown_) {
      std::rethrow_exception(thrown_);
    }
  }

 private:
  static constexpr std::size_t stack_size = 256 << 10;

  static int run(void* self) {
    auto& undivided = *static_cast<Undivided*>(self);
    try {
      undivided.action_();
    } catch (...) {
      undivided.thrown_ = std::current_exception();
    }
    return 0;
  }

  const std::function<void()>& action_;
  std::unique_ptr<std::byte[]> stack_;
  std::exception_ptr thrown_;
};

// Makes something under a free name; returns its O_PATH descriptor, and the name is gone again. `suffix` is added when
// the path itself is taken.
template <typename Make>
base::Fd make_nameless(const Place& place, const std::string& suffix, Make make) {
  const auto attempt = [&](const Place& at) {
    if (make(at) < 0) {
      if (errno == EEXIST && at.path == place.path) {
        return base::Fd();
      }
      throw Error("make again the removed file", at.path, errno);
    }
    base::Fd fd(::openat(at.root, at.name(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    const int error = errno;
    if (::unlinkat(at.root, at.name(), 0) < 0 && errno == EISDIR) {
      ::unlinkat(at.root, at.name(), AT_REMOVEDIR);
    }
    if (!fd) {
      throw Error("open", at.path, error);
    }
    return fd;
  };
  base::Fd made;
  const Undivided done([&] {
    const Parents parents(place);
    made = attempt(place);
    if (!made) {
      made = attempt(place.with(place.path + suffix));
    }
  });
  return made;
}

int make_node(const Place& at, const images::ghost_file_entry& ghost) {
  const auto kind = ghost.mode() & S_IFMT;
  switch (kind) {
    case S_IFDIR:
      return ::mkdirat(at.root, at.name(), 0700);
    case S_IFLNK:
      return ::symlinkat(ghost.symlnk_target().c_str(), at.root, at.name());
    case S_IFREG:
    case S_IFIFO:
    case S_IFCHR:
    case S_IFBLK:
      return ::mknodat(at.root, at.name(), kind | 0600, kind == S_IFCHR || kind == S_IFBLK ? ghost.rdev() : 0);
    default:
      errno = EINVAL;
      return -1;
  }
}

void copy_in(image::Reader& reader, int fd, std::uint64_t at, std::uint64_t size, const std::string& what) {
  while (size > 0) {
    const auto bytes = reader.raw(std::min<std::uint64_t>(size, piece));
    for (std::size_t done = 0; done < bytes.size();) {
      done += static_cast<std::size_t>(
          check(::pwrite(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(at + done)), "write", what));
    }
    at += bytes.size();
    size -= bytes.size();
  }
}

void fill_ghost(image::Reader& reader, const images::ghost_file_entry& ghost, int path_fd, const std::string& what) {
  const auto fd = reopen(path_fd, O_WRONLY, what);
  if (!ghost.chunks()) {
    return copy_in(reader, fd.get(), 0, reader.left(), what);
  }
  if (ghost.size() > std::uint64_t{1} << 62) {
    throw Error("corrupt image", reader.name() + ": size", 0);
  }
  images::ghost_chunk_entry chunk;
  while (reader.next(chunk)) {
    if (chunk.off() > ghost.size() || chunk.len() > ghost.size() - chunk.off()) {
      throw Error("corrupt image", reader.name() + ": a chunk behind the end of the file", 0);
    }
    copy_in(reader, fd.get(), chunk.off(), chunk.len(), what);
  }
  check(::ftruncate(fd.get(), static_cast<off_t>(ghost.size())), "set the size of", what);
}

void set_attributes(const images::ghost_file_entry& ghost, int fd, const std::string& what) {
  const auto magic = fmt::format("/proc/self/fd/{}", fd);
  check(::fchownat(fd, "", ghost.uid(), ghost.gid(), AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW), "set the owner of", what);
  if ((ghost.mode() & S_IFMT) != S_IFLNK) {
    check(::chmod(magic.c_str(), ghost.mode() & 07777), "set the mode of", what);
  }
  if (ghost.has_atim() && ghost.has_mtim()) {
    const auto time = [](const images::timeval& value) {
      return timespec{static_cast<time_t>(value.tv_sec()), static_cast<long>(value.tv_usec() % 1'000'000 * 1000)};
    };
    const timespec times[] = {time(ghost.atim()), time(ghost.mtim())};
    check(::utimensat(AT_FDCWD, magic.c_str(), times, 0), "set the times of", what);
  }
}

base::Fd restore_ghost(const RestoreContext& context, std::uint32_t ghost_id, const Place& place,
                       images::ghost_file_entry& ghost) {
  auto reader = context.images.require(image::type::ghost_file, ghost_id);
  if (!reader.next(ghost)) {
    throw Error("corrupt image", reader.name() + ": no record", 0);
  }
  auto fd = make_nameless(place, fmt::format(".cr.{:x}.ghost", ghost_id),
                          [&](const Place& at) { return make_node(at, ghost); });
  const auto what = fmt::format("{} (removed, ghost {:x})", place.path, ghost_id);
  if (S_ISREG(ghost.mode())) {
    fill_ghost(reader, ghost, fd.get(), what);
  }
  set_attributes(ghost, fd.get(), what);
  return fd;
}

base::Fd restore_link(const Place& link, const Place& place) {
  return make_nameless(place, ".cr.link",
                       [&](const Place& at) { return ::linkat(link.root, link.name(), at.root, at.name(), 0); });
}

Place checked_place(const RestoreContext& context, std::uint32_t id) {
  const auto& entry = context.checkpoint.file(images::REG, id, "remap-fpath.img").reg();
  const auto& path = entry.name();
  if (path.empty() || path.front() != '/' || path.find('\0') != std::string::npos) {
    throw Error("corrupt checkpoint", fmt::format("file {} has the path '{}'", id, path), 0);
  }
  return place_of(context, entry);
}

}  // namespace

Remaps::Remaps(const RestoreContext& context) {
  constexpr std::uint32_t old_ghost_bit = 1U << 31;
  std::map<std::pair<images::remap_type, std::uint32_t>, int> done;
  for (const auto& remap : context.checkpoint.remaps) {
    auto id = remap.remap_id();
    auto type = remap.remap_type();
    if (!remap.has_remap_type()) {
      type = (id & old_ghost_bit) != 0 ? images::GHOST : images::LINKED;
      id &= ~old_ghost_bit;
    }
    const auto place = checked_place(context, remap.orig_id());
    if (type == images::PROCFS) {
      processes_.insert(static_cast<pid_t>(id));  // who stands in for it is in the family
      continue;
    }
    auto known = done.find({type, id});
    if (known == done.end()) {
      images::ghost_file_entry ghost;
      fds_.push_back(context.internal(type == images::GHOST ? restore_ghost(context, id, place, ghost)
                                                            : restore_link(checked_place(context, id), place)));
      known = done.emplace(std::pair{type, id}, fds_.back().get()).first;
      if (type == images::GHOST) {
        by_inode_.emplace(ghost.ino(), std::pair{ghost.dev(), fds_.back().get()});
      }
      if (type == images::LINKED) {
        links_.push_back(checked_place(context, id));
      }
    }
    by_file_[remap.orig_id()] = known->second;
  }
}

int Remaps::find(std::uint32_t file_id) const {
  const auto found = by_file_.find(file_id);
  return found == by_file_.end() ? -1 : found->second;
}

int Remaps::find_inode(std::uint32_t dev, std::uint64_t ino) const {
  const auto [begin, end] = by_inode_.equal_range(ino);
  for (auto at = begin; at != end; ++at) {
    if (at->second.first == dev) {
      return at->second.second;
    }
  }
  // On btrfs a file's device is not the one that watches tell.
  return begin != end && std::next(begin) == end ? begin->second.second : -1;
}

void Remaps::unlink_links() const {
  for (const auto& link : links_) {
    if (::unlinkat(link.root, link.name(), 0) < 0 && errno != ENOENT) {
      LOG_WARN("{} cannot be removed: {}", link.path, std::strerror(errno));
    }
  }
}

}  // namespace criu::files
