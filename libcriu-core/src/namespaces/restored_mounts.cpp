// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/restored_mounts.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.hpp"
#include "log.hpp"
#include "namespaces/outer_mounts.hpp"
#include "namespaces/tarball.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

std::string what_of(const images::mnt_entry& mount) { return "mount " + mount.mountpoint(); }

base::Fd clone_of(int directory, const char* path, const std::string& what) {
  return base::Fd(
      check(::open_tree(directory, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH), "bind", what));
}

// Parts of a mount point that are below that of the parent; "" when it is mounted on the very root of that.
std::string below_parent(const std::string& point, const std::string& parent) {
  const auto rest = point.substr(parent == "/" ? 0 : parent.size());
  return rest.starts_with('/') ? rest.substr(1) : rest;
}

// Without passing into what is mounted there already.
base::Fd open_point(int parent, const std::string& below, const std::string& what) {
  if (below.empty()) {
    return base::Fd(check(::fcntl(parent, F_DUPFD_CLOEXEC, 0), "open", what));
  }
  open_how how{};
  how.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS;
  return base::Fd(
      static_cast<int>(check(::syscall(SYS_openat2, parent, below.c_str(), &how, sizeof how), "open the mount point of",
                             what, "the root given with --root has to have it, as it had at the dump")));
}

class Context {
 public:
  Context(const char* type, const std::string& what)
      : what_(what), fd_(check(::fsopen(type, FSOPEN_CLOEXEC), "make a file system for", what)) {}
  void set(const std::string& key, const std::string& value) {
    check(::fsconfig(fd_.get(), FSCONFIG_SET_STRING, key.c_str(), value.c_str(), 0), "set option", describe(key));
  }
  void set(const std::string& flag) {
    check(::fsconfig(fd_.get(), FSCONFIG_SET_FLAG, flag.c_str(), nullptr, 0), "set option", describe(flag));
  }
  base::Fd mount() {
    check(::fsconfig(fd_.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), "make the file system of", describe({}));
    return base::Fd(check(::fsmount(fd_.get(), FSMOUNT_CLOEXEC, 0), "make", what_));
  }

 private:
  // The kernel says there what it did not like.
  std::string describe(const std::string& option) const {
    const int error = errno;
    char said[256] = {};
    const auto size = ::read(fd_.get(), said, sizeof said - 1);
    errno = error;
    return what_ + (option.empty() ? "" : " (" + option + ")") + (size > 0 ? std::string(": ") + said : "");
  }

  const std::string& what_;
  base::Fd fd_;
};

void set_attributes(int fd, std::uint64_t set, std::uint64_t clear, std::uint64_t propagation,
                    const std::string& what) {
  mount_attr attributes{};
  attributes.attr_set = set;
  attributes.attr_clr = clear;
  attributes.propagation = propagation;
  check(::mount_setattr(fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes), "set the flags of", what);
}

// What a clone has inherited gives way.
constexpr std::uint64_t all_attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
                                         MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME;

std::uint64_t attributes_of(std::uint32_t flags) {
  return ((flags & MS_NOSUID) != 0 ? MOUNT_ATTR_NOSUID : 0) | ((flags & MS_NODEV) != 0 ? MOUNT_ATTR_NODEV : 0) |
         ((flags & MS_NOEXEC) != 0 ? MOUNT_ATTR_NOEXEC : 0) |
         ((flags & MS_NODIRATIME) != 0 ? MOUNT_ATTR_NODIRATIME : 0) |
         ((flags & MS_NOATIME) != 0       ? MOUNT_ATTR_NOATIME
          : (flags & MS_STRICTATIME) != 0 ? MOUNT_ATTR_STRICTATIME
                                          : MOUNT_ATTR_RELATIME);
}

// Whether one of the layers of an overlay is on the other mount, or would be if it were there.
bool has_layer_on(const images::mnt_entry& overlay, const images::mnt_entry& other) {
  const std::string options = overlay.options() + ",";
  for (auto at = options.find(other.mountpoint()); at != std::string::npos;
       at = options.find(other.mountpoint(), at + 1)) {
    if (at > 0 && (options[at - 1] == '=' || options[at - 1] == ':') &&
        std::string_view("/,:").find(options[at + other.mountpoint().size()]) != std::string_view::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace

RestoredMounts::RestoredMounts(const RestoreContext& context, bool own_pids) : context_(context), own_pids_(own_pids) {
  read(context.checkpoint.root().ids.mnt_ns_id());
  for (const auto& task : context.checkpoint.tasks) {
    const auto ns_id = task->ids.mnt_ns_id();
    if (task->alive() &&
        std::none_of(spaces_.begin(), spaces_.end(), [ns_id](const Space& space) { return space.ns_id == ns_id; })) {
      read(ns_id);
    }
  }
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const auto& entry = entries_[i];
    mounts_[i].entry = &entry;
    groups_.insert(entry.shared_id());
    points_.emplace(std::pair{entry.parent_mnt_id(), entry.mountpoint()}, entry.mnt_id());
  }
  origins_ = Origins(entries_);
  for (std::size_t space = 0; space < spaces_.size(); ++space) {
    root_in(space);
  }
  note_late();
  open_outer_groups();
}

void RestoredMounts::read(std::uint32_t ns_id) {
  auto image = context_.images.require(image::type::mnts, ns_id);
  for (images::mnt_entry entry; image.next(entry);) {
    if (entry.mountpoint().empty() || entry.mountpoint()[0] != '/' || entry.root().empty() ||
        !places_.emplace(entry.mnt_id(), entries_.size()).second) {
      throw Error("corrupt checkpoint", fmt::format("mountpoints-{}.img: mount {}", ns_id, entry.mnt_id()), 0);
    }
    entries_.push_back(entry);
    mounts_.push_back({nullptr, spaces_.size(), {}});
  }
  spaces_.push_back({ns_id, {}});
}

RestoredMounts::Made* RestoredMounts::find(std::uint32_t id) {
  const auto found = places_.find(id);
  return found == places_.end() ? nullptr : &mounts_[found->second];
}

// Whether something is mounted upon a mount that the way to it leads over, at a place on the way.
bool RestoredMounts::is_covered(const Made& made, const std::string& path) const {
  std::set<std::uint32_t> way;
  for (auto at = places_.find(made.entry->mnt_id()); at != places_.end() && way.insert(at->first).second;) {
    at = places_.find(entries_[at->second].parent_mnt_id());
  }
  for (auto size = path.size(); size != std::string::npos && size != 0; size = path.rfind('/', size - 1)) {
    for (const auto below : way) {
      const auto [begin, end] = points_.equal_range({below, path.substr(0, size)});
      if (std::any_of(begin, end, [&](const auto& other) { return !way.contains(other.second); })) {
        return true;
      }
    }
  }
  return false;
}

files::Place RestoredMounts::find(int mnt_id, const std::string& path) const {
  const auto found = places_.find(static_cast<std::uint32_t>(mnt_id));
  if (found == places_.end()) {
    return {AT_FDCWD, path};
  }
  const auto& made = mounts_[found->second];
  const auto& point = made.entry->mountpoint();
  if (kernel::is_below(path, point) && is_covered(made, path)) {
    return {made.fd.get(), "/" + below_parent(path, point)};
  }
  if (made.space == 0) {
    return {AT_FDCWD, path};
  }
  const auto root = std::find_if(mounts_.begin(), mounts_.end(), [&made](const Made& other) {
    return other.space == made.space && is_root(*other.entry);
  });
  return {root->fd.get(), path};
}

int RestoredMounts::namespace_of(std::uint32_t ns_id) const {
  const auto found =
      std::find_if(spaces_.begin(), spaces_.end(), [ns_id](const Space& space) { return space.ns_id == ns_id; });
  return found == spaces_.begin() || found == spaces_.end() ? -1 : found->ns.get();
}

// Mounts can be made and changed only from within their namespace.
void RestoredMounts::stand_in(std::size_t space) {
  if (space != stands_in_) {
    check(::setns(spaces_[space].ns.get(), CLONE_NEWNS), "change to another mount namespace of the tree");
    stands_in_ = space;
  }
}

// Every /proc, what is bound from it, and all that is mounted on these; terminals, which do not exist yet.
void RestoredMounts::note_late() {
  for (std::size_t before = late_.size() + 1; before != late_.size();) {
    before = late_.size();
    for (const auto& entry : entries_) {
      const auto* origin = origins_.of(entry);
      const bool proc = own_pids_ && entry.fstype() == images::PROC && !entry.has_ext_key();
      const bool terminal = entry.fstype() == images::DEVPTS && entry.root() != "/" && origin != nullptr;
      if (proc || terminal || late_.contains(entry.parent_mnt_id()) ||
          (origin != nullptr && !entry.has_ext_key() && late_.contains(origin->mnt_id()))) {
        late_.insert(entry.mnt_id());
      }
    }
  }
}

void RestoredMounts::take_outside() {
  check(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), "make a copy of mounts private");
  for (auto& made : mounts_) {
    if (is_first_root(made)) {
      const auto& path = context_.options.root.empty() ? "/" : context_.options.root;
      made.fd = context_.internal(clone_of(AT_FDCWD, path.c_str(), "--root " + path));
    } else if (made.entry->has_ext_key()) {
      made.fd = external(*made.entry);
    }
  }
}

// Each gets a place below a root of its own, from which everything else is out of the way, but not out of sight.
void RestoredMounts::gather_outside() {
  take_outside();
  const std::string what = "a place for what is outside";
  const auto place = Context("tmpfs", what).mount();
  check(::move_mount(place.get(), "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH), "mount", what);
  const auto proc = clone_of(AT_FDCWD, "/proc", "/proc");
  const auto gather = [&](const std::string& name, const base::Fd& fd) {
    struct stat stat {};
    check(::fstat(fd.get(), &stat), "look at", what);
    check(S_ISDIR(stat.st_mode) ? ::mkdirat(place.get(), name.c_str(), 0755)
                                : ::mknodat(place.get(), name.c_str(), S_IFREG | 0644, 0),
          "make", what);
    check(::move_mount(fd.get(), "", place.get(), name.c_str(), MOVE_MOUNT_F_EMPTY_PATH), "mount in", what);
  };
  for (const auto& made : mounts_) {
    if (made.fd) {
      gather(std::to_string(made.entry->mnt_id()), made.fd);
    }
  }
  gather("proc", proc);
  check(::mkdirat(place.get(), "before", 0755), "make", what);
  check(::fchdir(place.get()), "enter", what);
  check(::syscall(SYS_pivot_root, ".", "before"), "change the root directory to", what);
  check(::chdir("/"), "enter", what);
}

// From the copy, in which the kernel has locked the flags that they have here.
void RestoredMounts::take_gathered() {
  const auto take = [this](const std::string& name, const std::string& what) {
    return context_.internal(clone_of(AT_FDCWD, ("/" + name).c_str(), what));
  };
  for (auto& made : mounts_) {
    if (made.fd) {
      made.fd = take(std::to_string(made.entry->mnt_id()), what_of(*made.entry));
    }
  }
  if (own_pids_) {
    passing_proc_ = take("proc", "/proc");
  }
  // The kernel gives these to users of their own only as long as they see one of them, whole.
  make_ahead(images::SYSFS);
  if (!own_pids_) {
    make_ahead(images::PROC);
  }
}

void RestoredMounts::make_ahead(std::uint32_t fstype) {
  for (auto& made : mounts_) {
    if (made.entry->fstype() == fstype && !made.fd && !made.entry->has_ext_key() &&
        origins_.of(*made.entry) == nullptr) {
      made.fd = made_anew(*made.entry);
    }
  }
}

// A /proc of ours, for as long as the real one cannot be there.
void RestoredMounts::attach_passing_proc() {
  stand_in(0);
  const auto point = open_point(root_in(0).fd.get(), "proc", "mount /proc");
  if (!passing_proc_) {
    passing_proc_ = Context("proc", "mount /proc").mount();
  }
  check(::move_mount(passing_proc_.get(), "", point.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
        "mount", "/proc");
  passing_proc_.reset();
}

void RestoredMounts::make() {
  proc_ = context_.internal(base::Fd(check(::open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC), "open", "/proc")));
  spaces_[0].ns = current_namespace();
  change_root(root_in(0));
  make_all(false);
  if (own_pids_) {
    attach_passing_proc();
  }
  if (!has_late()) {
    restore_sharing();
    make_read_only();
  }
  stand_in(0);
}

void RestoredMounts::make_late() {
  if (own_pids_) {
    make_ahead(images::PROC);
    check(::umount2("/proc", MNT_DETACH), "unmount the passing", "/proc");
  }
  make_all(true);
  restore_sharing();
  make_read_only();
  stand_in(0);
}

RestoredMounts::Made& RestoredMounts::root_in(std::size_t space) {
  const auto found = std::find_if(mounts_.begin(), mounts_.end(),
                                  [space](const Made& made) { return made.space == space && is_root(*made.entry); });
  if (found == mounts_.end()) {
    throw Error("corrupt checkpoint", fmt::format("mountpoints-{}.img: no root", spaces_[space].ns_id), 0);
  }
  return *found;
}

base::Fd RestoredMounts::current_namespace() const {
  return context_.internal(
      base::Fd(check(::openat(proc_.get(), "self/ns/mnt", O_RDONLY | O_CLOEXEC), "open", "the mount namespace")));
}

void RestoredMounts::change_root(const Made& root) {
  const auto what = what_of(*root.entry);
  check(::move_mount(root.fd.get(), "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH), "mount the new root", what);
  check(::fchdir(root.fd.get()), "enter the new root", what);
  check(::syscall(SYS_pivot_root, ".", "."), "change to the new root", what);
  check(::umount2(".", MNT_DETACH), "leave the old root");
  check(::chdir("/"), "enter the new root", what);
  set_attributes(root.fd.get(), attributes_of(root.entry->flags()), all_attributes, 0, what);
}

// All that was in the namespace that it begins as a copy of goes with the old root. Nothing is shared yet.
void RestoredMounts::make_space(Made& root) {
  stand_in(0);
  check(::unshare(CLONE_NEWNS), "make a mount namespace");
  spaces_[root.space].ns = current_namespace();
  stands_in_ = root.space;
  change_root(root);
}

bool RestoredMounts::has_origin(const Made& made) {
  const auto* origin = made.entry->has_ext_key() ? nullptr : origins_.of(*made.entry);
  return origin == nullptr || attached_.contains(origin->mnt_id());
}

bool RestoredMounts::ready(const Made& made) {
  if (is_root(*made.entry)) {
    return has_origin(made);
  }
  const auto* parent = find(made.entry->parent_mnt_id());
  if (parent == nullptr) {
    throw Error("corrupt checkpoint", what_of(*made.entry) + ": what it is mounted on is missing", 0);
  }
  const auto attached = [this](std::uint32_t id) { return attached_.contains(id); };
  if (!attached(parent->entry->mnt_id())) {
    return false;
  }
  // What is mounted below the point of a sibling would be out of reach once that is there.
  const auto below = made.entry->mountpoint() + "/";
  const auto parent_id = made.entry->parent_mnt_id();
  for (auto other = points_.lower_bound({parent_id, below});
       other != points_.end() && other->first.first == parent_id && other->first.second.starts_with(below); ++other) {
    if (!attached(other->second)) {
      return false;
    }
  }
  if (made.entry->fstype() == images::OVERLAYFS && std::any_of(mounts_.begin(), mounts_.end(), [&](const Made& other) {
        return other.space == made.space && !attached(other.entry->mnt_id()) && has_layer_on(*made.entry, *other.entry);
      })) {
    return false;
  }
  return has_origin(made);
}

// In an order in which each finds its parent, what it is bound from, and its place not yet covered.
void RestoredMounts::make_all(bool late) {
  attached_.insert(root_in(0).entry->mnt_id());
  for (bool progress = true; progress;) {
    progress = false;
    for (auto& made : mounts_) {
      if (!attached_.contains(made.entry->mnt_id()) && late_.contains(made.entry->mnt_id()) == late && ready(made)) {
        attach(made);
        progress = true;
      }
    }
  }
  for (const auto& made : mounts_) {
    if (!attached_.contains(made.entry->mnt_id()) && late_.contains(made.entry->mnt_id()) == late) {
      throw Error("cannot restore", what_of(*made.entry) + ": it hangs on itself", 0);
    }
  }
}

std::string RestoredMounts::external_path(const images::mnt_entry& mount) const {
  if (mount.ext_key() == found_outside) {
    if (!context_.options.auto_mounts) {
      throw Error("cannot restore", what_of(mount) + ": the dump has found it to come from outside", 0,
                  "--external mnt[] takes it from the same place here: /" + mount.source());
    }
    return "/" + mount.source();
  }
  const auto prefix = "mnt[" + mount.ext_key() + "]:";
  const auto found = context_.options.external.lower_bound(prefix);
  if (found == context_.options.external.end() || !found->starts_with(prefix)) {
    throw Error("cannot restore", fmt::format("{}: it was external, with the key {}", what_of(mount), mount.ext_key()),
                0, fmt::format("--external mnt[{}]:PATH says what to take for it", mount.ext_key()));
  }
  return found->substr(prefix.size());
}

base::Fd RestoredMounts::external(const images::mnt_entry& mount) const {
  const auto path = external_path(mount);
  return context_.internal(clone_of(AT_FDCWD, path.c_str(), path + " for " + what_of(mount)));
}

bool RestoredMounts::shares_outside(const images::mnt_entry& mount) const {
  return mount.ext_key() == found_outside && mount.shared_id() != 0 && !mount.internal_sharing();
}

bool RestoredMounts::hears_outside(const images::mnt_entry& mount) const {
  return mount.ext_key() == found_outside && mount.master_id() != 0 && !shares_outside(mount) &&
         !has_group(mount.master_id());
}

// As long as they are mounted where they are: what hangs nowhere has no groups to join.
void RestoredMounts::open_outer_groups() {
  for (const auto& entry : entries_) {
    const bool shares = shares_outside(entry);
    if (!shares && !hears_outside(entry)) {
      continue;
    }
    if (!(shares ? context_.options.external_sharing : context_.options.external_masters)) {
      throw Error("cannot restore", what_of(entry) + ": it shared mounts with what was outside", 0,
                  shares ? "--enable-external-sharing does so again" : "--enable-external-masters does so again");
    }
    outer_groups_.emplace(entry.mnt_id(), context_.internal(open_mount_of(external_path(entry))));
  }
}

base::Fd RestoredMounts::made_anew(const images::mnt_entry& mount) const {
  const auto what = what_of(mount);
  const auto type = filesystem_name(mount);
  if (type.empty()) {
    throw Error("not supported by this version", what + ": a file system of this kind, made anew", 0,
                "--external or --skip-mnt at the dump does without it");
  }
  if (mount.fstype() == images::AUTO && !is_enabled(context_.options, type)) {
    throw Error("cannot restore", fmt::format("{}: a {} is mounted only if asked for", what, type), 0,
                "--enable-fs " + type + " does that");
  }
  Context context(type.c_str(), what);
  for (const auto& option : options_in(mount.options())) {
    const auto equals = option.find('=');
    if (equals != std::string::npos) {
      context.set(option.substr(0, equals), option.substr(equals + 1));
    } else if (option != "newinstance") {
      context.set(option);
    }
  }
  if (mount.fstype() != images::TMPFS && (mount.sb_flags() & MS_RDONLY) != 0) {
    context.set("ro");
  }
  if (!mount.source().empty()) {
    context.set("source", mount.source());
  }
  auto fd = context_.internal(context.mount());
  if (mount.fstype() == images::TMPFS) {
    const auto image = context_.images.open_raw(image::type::tmpfs_dev, mount.root_dev());
    tarball::extract(image.get(), fd.get(), "the contents of " + mount.mountpoint());
  }
  return fd;
}

RestoredMounts::Doomed::~Doomed() { ::unlinkat(above.get(), name.c_str(), directory ? AT_REMOVEDIR : 0); }

// What has been deleted is there until everything is mounted: the kernel mounts nothing that is gone.
base::Fd RestoredMounts::deleted(const images::mnt_entry& mount, const images::mnt_entry& origin) {
  const auto what = what_of(mount);
  for (const auto& other : mounts_) {
    if (other.fd && other.entry->deleted() && other.entry->root_dev() == mount.root_dev() &&
        other.entry->root() == mount.root()) {
      stand_in(other.space);
      return context_.internal(clone_of(other.fd.get(), "", what));
    }
  }
  stand_in(find(origin.mnt_id())->space);
  struct stat point {};
  const auto& parent = *find(mount.parent_mnt_id());
  check(::fstat(open_point(parent.fd.get(), below_parent(mount.mountpoint(), parent.entry->mountpoint()), what).get(),
                &point),
        "look at the mount point of", what);
  const bool directory = S_ISDIR(point.st_mode);
  const std::string path = path_below(origin, mount);
  const auto slash = path.rfind('/');
  auto above = open_point(find(origin.mnt_id())->fd.get(), slash == path.npos ? "" : path.substr(0, slash), what);
  auto name = slash == path.npos ? path : path.substr(slash + 1);
  const auto make = [&] {
    return directory ? ::mkdirat(above.get(), name.c_str(), 0755)
                     : ::mknodat(above.get(), name.c_str(), S_IFREG | 0644, 0);
  };
  int made = make();
  if (made != 0 && errno == EEXIST) {  // something else has the name today
    name += fmt::format(".{}", ::getpid());
    made = make();
  }
  check(made, "make again what was deleted for", what);
  doomed_.emplace_back(new Doomed{context_.internal(std::move(above)), name, directory});
  return context_.internal(clone_of(doomed_.back()->above.get(), name.c_str(), what));
}

base::Fd RestoredMounts::source_of(const Made& made) {
  const auto& mount = *made.entry;
  const auto* origin = origins_.of(mount);
  if (origin != nullptr && mount.deleted()) {
    return deleted(mount, *origin);
  }
  // Of some file systems the kernel has but one, which it gives a new mount as well: then with its own source.
  if (origin != nullptr && !(is_single(mount.fstype()) && mount.root() == "/" && mount.source() != origin->source())) {
    const auto& whole = *find(origin->mnt_id());
    stand_in(whole.space);
    return context_.internal(clone_of(whole.fd.get(), path_below(*origin, mount), what_of(mount)));
  }
  stand_in(is_root(mount) ? 0 : made.space);  // the layers of an overlay are found there
  return made_anew(mount);
}

void RestoredMounts::attach(Made& made) {
  const auto& mount = *made.entry;
  if (!made.fd) {
    made.fd = source_of(made);
  }
  attached_.insert(mount.mnt_id());
  if (is_root(mount)) {
    return make_space(made);
  }
  stand_in(made.space);
  const auto& parent = *find(mount.parent_mnt_id());
  const auto below = below_parent(mount.mountpoint(), parent.entry->mountpoint());
  const auto point = open_point(parent.fd.get(), below, what_of(mount));
  check(::move_mount(made.fd.get(), "", point.get(), "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), "mount",
        mount.mountpoint());
  set_attributes(made.fd.get(), attributes_of(mount.flags()), all_attributes, 0, what_of(mount));
}

// The first of a group, the one that shows most, is made shared (or hears of its masters); the others join it.
void RestoredMounts::restore_sharing() {
  std::map<std::uint32_t, Made*> groups;
  const auto join = [](int from, const Made& to) {
    check(::move_mount(from, "", to.fd.get(), "",
                       MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH | MOVE_MOUNT_SET_GROUP),
          "share", what_of(*to.entry));
  };
  std::vector<Made*> waiting;
  for (auto& made : mounts_) {
    if (made.entry->shared_id() != 0 || made.entry->master_id() != 0) {
      waiting.push_back(&made);
    }
  }
  std::stable_sort(waiting.begin(), waiting.end(),
                   [](const Made* a, const Made* b) { return a->entry->root().size() < b->entry->root().size(); });
  for (bool progress = true; progress && !waiting.empty();) {
    progress =
        std::erase_if(waiting, [&](Made* made) {
          stand_in(made->space);
          const auto shared = made->entry->shared_id(), master = made->entry->master_id();
          const auto peer = groups.find(shared);
          const auto masters = groups.find(master);
          if (shared != 0 && peer != groups.end()) {
            join(peer->second->fd.get(), *made);
            return true;
          }
          const auto outer = outer_groups_.find(made->entry->mnt_id());
          const bool outside = master != 0 && !has_group(master);
          if (outer != outer_groups_.end()) {
            join(outer->second.get(), *made);
            if (shares_outside(*made->entry)) {
              groups[shared] = made;
              return true;
            }
            set_attributes(made->fd.get(), 0, 0, MS_SLAVE, what_of(*made->entry));
          } else if (master != 0 && !outside) {
            if (masters == groups.end()) {
              return false;
            }
            join(masters->second->fd.get(), *made);
            set_attributes(made->fd.get(), 0, 0, MS_SLAVE, what_of(*made->entry));
          } else if (outside) {
            LOG_WARN("{}: what is mounted outside of the tree is not passed on to it any more", what_of(*made->entry));
          }
          if (shared != 0) {
            set_attributes(made->fd.get(), 0, 0, MS_SHARED, what_of(*made->entry));
            groups[shared] = made;
          }
          return true;
        }) != 0;
  }
  for (auto& made : mounts_) {
    if ((made.entry->flags() & MS_UNBINDABLE) != 0) {
      stand_in(made.space);
      set_attributes(made.fd.get(), 0, 0, MS_UNBINDABLE, what_of(*made.entry));
    }
  }
}

// When all that is to be written is.
void RestoredMounts::make_read_only() {
  doomed_.clear();
  for (const auto& made : mounts_) {
    const auto& mount = *made.entry;
    const bool own = !is_first_root(made) && !mount.has_ext_key() && origins_.of(mount) == nullptr;
    if ((mount.flags() & MS_RDONLY) != 0) {
      stand_in(made.space);
    }
    if (own && mount.fstype() == images::TMPFS && (mount.sb_flags() & MS_RDONLY) != 0) {
      const base::Fd fs(check(::fspick(made.fd.get(), "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC),
                              "open the file system of", what_of(mount)));
      check(::fsconfig(fs.get(), FSCONFIG_SET_FLAG, "ro", nullptr, 0), "make read-only", what_of(mount));
      check(::fsconfig(fs.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr, 0), "make read-only", what_of(mount));
    }
    if ((mount.flags() & MS_RDONLY) != 0) {
      set_attributes(made.fd.get(), MOUNT_ATTR_RDONLY, 0, 0, what_of(mount));
    }
  }
}

}  // namespace criu::namespaces
