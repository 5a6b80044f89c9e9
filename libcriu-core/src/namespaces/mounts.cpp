// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/mounts.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <sstream>

#include "base/error.hpp"
#include "files/common.hpp"
#include "log.hpp"
#include "namespaces/tarball.hpp"

namespace criu::namespaces {

using base::Error;
using kernel::Mount;

namespace {

struct Filesystem {
  const char* name;
  images::fstype type;
  bool single;
};

// Those that can be made anew.
constexpr Filesystem filesystems[] = {
    {"proc", images::PROC, false},         {"sysfs", images::SYSFS, true},     {"devtmpfs", images::DEVTMPFS, true},
    {"tmpfs", images::TMPFS, false},       {"devpts", images::DEVPTS, false},  {"mqueue", images::MQUEUE, true},
    {"cgroup", images::CGROUP, false},     {"cgroup2", images::CGROUP2, true}, {"securityfs", images::SECURITYFS, true},
    {"debugfs", images::DEBUGFS, true},    {"pstore", images::PSTORE, true},   {"fusectl", images::FUSECTL, true},
    {"overlay", images::OVERLAYFS, false},
};

struct Word {
  const char* text;
  std::uint32_t flag;
};

constexpr std::uint32_t relatime = MS_RELATIME, noatime = MS_NOATIME, strictatime = MS_STRICTATIME;
constexpr Word mount_words[] = {{"ro", MS_RDONLY},     {"nosuid", MS_NOSUID}, {"nodev", MS_NODEV},
                                {"noexec", MS_NOEXEC}, {"noatime", noatime},  {"nodiratime", MS_NODIRATIME},
                                {"relatime", relatime}};
constexpr Word super_words[] = {{"ro", MS_RDONLY}, {"sync", MS_SYNCHRONOUS}, {"dirsync", MS_DIRSYNC}, {"rw", 0}};

// Takes out of a list of options those that are flags.
template <std::size_t Count>
std::uint32_t take_flags(const std::string& options, const Word (&words)[Count], std::string& rest) {
  std::uint32_t flags = 0;
  for (const auto& word : options_in(options)) {
    const auto* known = std::find_if(words, words + Count, [&](const Word& w) { return word == w.text; });
    if (known != words + Count) {
      flags |= known->flag;
    } else {
      rest += (rest.empty() ? "" : ",") + word;
    }
  }
  return flags;
}

template <typename Matches>
const Filesystem* find_filesystem(Matches matches) {
  const auto* found = std::find_if(std::begin(filesystems), std::end(filesystems), matches);
  return found == std::end(filesystems) ? nullptr : found;
}

const Filesystem* filesystem(const std::string& name) {
  return find_filesystem([&](const Filesystem& known) { return name == known.name; });
}

const Filesystem* filesystem(std::uint32_t type) {
  return find_filesystem([&](const Filesystem& known) { return known.type == static_cast<int>(type); });
}

// The key that --external mnt[POINT]:KEY gives; empty: none.
std::string external_key(const Options& options, const std::string& point) {
  const auto wanted = "mnt[" + point + "]";
  const auto found = options.external.lower_bound(wanted);
  if (found == options.external.end() || !found->starts_with(wanted)) {
    return {};
  }
  return found->size() > wanted.size() && (*found)[wanted.size()] == ':' ? found->substr(wanted.size() + 1) : point;
}

class Saver {
 public:
  Saver(DumpContext& context, const MountSources& sources) : context_(context), sources_(sources) {
    add(sources.link, sources.mounts);
    check_proc();
    for (const auto& space : sources.inner) {
      add(space.link, space.mounts);
    }
  }

  void save() {
    for (const auto& mount : mounts_) {
      entries_.push_back(entry_of(mount));
    }
    origins_ = Origins(entries_);
    report_unused_keys();
    find_outside();
    std::size_t i = 0;
    for (const auto& [link, end] : ends_) {
      auto image = context_.images.create(image::type::mnts, context_.namespaces->at(link));
      for (; i < end; ++i) {
        check(i);
        image.write(entries_[i]);
      }
      image.finish();
    }
    save_contents();
  }

 private:
  // Those of one namespace.
  void add(const std::string& link, std::vector<Mount> mounts) {
    leave_out(mounts);
    std::move(mounts.begin(), mounts.end(), std::back_inserter(mounts_));
    ends_.emplace_back(link, mounts_.size());
  }

  // What the user does not want, what the format has no word for (trace files), and all that is mounted on these.
  void leave_out(std::vector<Mount>& mounts) const {
    std::set<int> gone;
    const auto& skip = context_.options.skip_mnt;
    for (bool progress = true; progress;) {
      progress = false;
      for (const auto& mount : mounts) {
        const bool trace = mount.type == "tracefs" && !is_enabled(context_.options, mount.type);
        if ((trace || gone.contains(mount.parent) || std::find(skip.begin(), skip.end(), mount.point) != skip.end()) &&
            gone.insert(mount.id).second) {
          progress = true;
          LOG_INFO("Mount {} ({}) is left out", mount.point, mount.type);
        }
      }
    }
    std::erase_if(mounts, [&](const Mount& mount) { return gone.contains(mount.id); });
  }

  images::mnt_entry entry_of(const Mount& mount) const {
    images::mnt_entry entry;
    set_type(mount.type, entry);
    entry.set_mnt_id(static_cast<std::uint32_t>(mount.id));
    entry.set_parent_mnt_id(static_cast<std::uint32_t>(mount.parent));
    entry.set_root_dev(mount.dev);
    std::string none, options;
    auto flags = take_flags(mount.options, mount_words, none);
    flags |= (flags & (relatime | noatime)) == 0 ? strictatime : 0;
    flags |= mount.unbindable ? MS_UNBINDABLE : 0;
    flags |= (mount.shared != 0 ? MS_SHARED : 0) | (mount.master != 0 ? MS_SLAVE : 0);
    entry.set_flags(flags);
    entry.set_sb_flags(take_flags(mount.super_options, super_words, options));
    if (mount.type == "devpts" && mount.dev != outer_devpts()) {
      options += options.empty() ? "newinstance" : ",newinstance";
    }
    options = context_.users->own() ? translated(options) : options;
    set_root(mount.root, entry);
    entry.set_mountpoint(mount.point);
    entry.set_source(mount.source);
    entry.set_options(options);
    entry.set_shared_id(static_cast<std::uint32_t>(mount.shared));
    entry.set_master_id(static_cast<std::uint32_t>(mount.master));
    if (const auto key = external_key(context_.options, mount.point); !key.empty()) {
      entry.set_ext_key(key);
    }
    return entry;
  }

  // The kernel tells whose files are from outside.
  std::string translated(const std::string& options) const {
    std::string all;
    for (auto option : options_in(options)) {
      const auto equals = option.find('=');
      const auto key = option.substr(0, equals);
      if (key == "uid" || key == "gid") {
        const auto id = static_cast<std::uint32_t>(std::stoul(option.substr(equals + 1)));
        option = fmt::format("{}={}", key, key == "uid" ? context_.users->user(id) : context_.users->group(id));
      }
      all += (all.empty() ? "" : ",") + option;
    }
    return all;
  }

  static void set_root(const std::string& root, images::mnt_entry& entry) {
    constexpr std::string_view deleted = "//deleted";
    if (root.ends_with(deleted)) {
      entry.set_deleted(true);
      entry.set_root(root.substr(0, root.size() - deleted.size()));
    } else {
      entry.set_root(root);
    }
  }

  void set_type(const std::string& type, images::mnt_entry& entry) const {
    if (const auto* known = filesystem(type); known != nullptr) {
      entry.set_fstype(known->type);
    } else if (is_enabled(context_.options, type)) {
      entry.set_fstype(images::AUTO);
      entry.set_fsname(type);
    } else {
      entry.set_fstype(images::UNSUPPORTED);
    }
  }

  // Most likely written wrong.
  void report_unused_keys() const {
    for (const auto& resource : context_.options.external) {
      const auto end = resource.find(']');
      const auto point = resource.starts_with("mnt[") ? resource.substr(4, end - 4) : "";
      if (!point.empty() && std::none_of(entries_.begin(), entries_.end(),
                                         [&](const images::mnt_entry& entry) { return entry.mountpoint() == point; })) {
        LOG_WARN("--external {}: nothing is mounted at {} in the tree", resource, point);
      }
    }
  }

  // With --external mnt[]. What the kernel has but once can be had of it again.
  void find_outside() {
    for (std::size_t i = 0; context_.options.auto_mounts && i < entries_.size(); ++i) {
      auto& entry = entries_[i];
      const auto type = entry.fstype();
      if (is_root(entry) || entry.has_ext_key() || is_single(type) || type == images::PROC || type == images::CGROUP) {
        continue;
      }
      if (const auto path = sources_.outer->find(mounts_[i])) {
        entry.set_ext_key(std::string(found_outside));
        entry.set_source(path->substr(1));
        check_sharing(mounts_[i], entry);
      }
    }
  }

  bool has_group(int group) const {
    return std::any_of(mounts_.begin(), mounts_.end(), [group](const Mount& mount) { return mount.shared == group; });
  }

  // Which of its groups are outside, too, and whether that is allowed.
  void check_sharing(const Mount& mount, images::mnt_entry& entry) {
    const bool shares = mount.shared != 0 && sources_.outer->has_group(mount.shared);
    entry.set_internal_sharing(mount.shared != 0 && !shares);
    const bool hears =
        !shares && mount.master != 0 && !has_group(mount.master) && sources_.outer->has_group(mount.master);
    if (context_.users->own() && (shares || hears)) {
      obstacle(
          mount,
          "what is mounted on it is mounted outside of the tree as well, or the other way round, which this version "
          "does not restore for a tree with users of its own");
      return;
    }
    if (shares && !context_.options.external_sharing) {
      obstacle(mount,
               "what is mounted on it is mounted outside of the tree as well; --enable-external-sharing allows that");
    }
    if (!shares && mount.master != 0 && !has_group(mount.master)) {
      if (!sources_.outer->has_group(mount.master)) {
        entry.set_master_id(0);
        LOG_WARN("Mount {}: where it hears of mounts from is neither in the tree nor here", mount.point);
      } else if (!context_.options.external_masters) {
        obstacle(mount, "it hears of what is mounted outside of the tree; --enable-external-masters allows that");
      }
    }
  }

  std::uint32_t outer_devpts() const { return files::kernel_dev(sources_.outer_devpts); }

  void obstacle(const Mount& mount, std::string why) {
    context_.obstacles.emplace_back("cannot dump", fmt::format("mount {} ({})", mount.point, mount.type), 0,
                                    std::move(why));
  }

  // The root of the tree's first mount namespace is the one that is given with --root.
  bool is_given(std::size_t i) const { return i < ends_.front().second && is_root(entries_[i]); }

  void check(std::size_t i) {
    const auto& mount = mounts_[i];
    const auto& entry = entries_[i];
    if (is_given(i) || entry.has_ext_key()) {
      return;
    }
    const auto external = fmt::format(
        "--external mnt[{}]:KEY lets the restore take it from elsewhere, --skip-mnt leaves it out", mount.point);
    const bool has_origin = origins_.of(entry) != nullptr;
    if (entry.deleted() && !has_origin) {
      obstacle(mount, "what is mounted there was deleted from a file system that is not mounted whole; " + external);
    } else if (entry.deleted() && !is_empty(mount)) {
      obstacle(mount, "a file that is mounted there has been deleted, and its contents would be lost; " + external);
    } else if (!has_origin && !is_made_anew(entry.fstype())) {
      obstacle(mount, fmt::format("this version does not know how to mount such a file system anew; {}, --enable-fs {} "
                                  "tries to",
                                  external, mount.type));
    } else if (!has_origin && entry.root() != "/" && entry.fstype() == images::TMPFS) {
      obstacle(mount, "it shows a part of a file system that is not mounted whole; " + external);
    }
  }

  // A directory that was deleted is. What is out of sight may be anything.
  bool is_empty(const Mount& mount) const {
    const auto fd = kernel::Mounts::open(mount, sources_.root_of(mount.id));
    struct stat stat {};
    return fd && ::fstat(fd.get(), &stat) == 0 &&
           (S_ISDIR(stat.st_mode) || (S_ISREG(stat.st_mode) && stat.st_size == 0));
  }

  // The restore works there, too.
  void check_proc() {
    if (std::none_of(mounts_.begin(), mounts_.end(),
                     [](const Mount& mount) { return mount.point == "/proc" && mount.type == "proc"; })) {
      context_.obstacles.emplace_back("cannot dump", "a mount namespace that has no /proc", 0,
                                      "this version needs one there to restore it");
    }
  }

  void save_contents() {
    std::map<std::uint32_t, std::size_t> in_sight;  // by device
    for (std::size_t i = 0; i < mounts_.size(); ++i) {
      if (mounts_[i].root == "/" && contents_of(mounts_[i].id) >= 0) {
        in_sight.emplace(mounts_[i].dev, i);
      }
    }
    std::set<std::uint32_t> done;
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      const auto& entry = entries_[i];
      if (entry.fstype() != images::TMPFS || entry.has_ext_key() || is_given(i) || entry.root() != "/" ||
          !done.insert(entry.root_dev()).second) {
        continue;
      }
      const auto found = in_sight.find(entry.root_dev());
      if (found == in_sight.end()) {
        obstacle(mounts_[i], "another mount hides it, and so its contents");
      } else if (!context_.look_only) {
        const auto file = context_.images.create_raw(image::type::tmpfs_dev, entry.root_dev());
        const auto& shown = mounts_[found->second];
        context_.users->run(
            [&] { tarball::write(contents_of(shown.id), file.get(), "the contents of " + shown.point); });
      }
    }
  }

  // The root of a tmpfs that nothing covers; -1: it is out of reach.
  int contents_of(int mount) const {
    const auto look = [mount](const std::map<int, base::Fd>& roots) {
      const auto found = roots.find(mount);
      return found == roots.end() ? -1 : found->second.get();
    };
    int root = look(sources_.tmpfs);
    for (auto space = sources_.inner.begin(); root < 0 && space != sources_.inner.end(); ++space) {
      root = look(space->tmpfs);
    }
    return root;
  }

  DumpContext& context_;
  const MountSources& sources_;
  std::vector<Mount> mounts_;                              // of one namespace after the other
  std::vector<std::pair<std::string, std::size_t>> ends_;  // of each, with its link
  Origins origins_;
  std::vector<images::mnt_entry> entries_;  // of the mounts, in their order
};

}  // namespace

void save_mounts(DumpContext& context) { Saver(context, *context.mounts).save(); }

std::vector<std::string> options_in(const std::string& list) {
  std::vector<std::string> options;
  std::istringstream words(list);
  for (std::string word; std::getline(words, word, ',');) {
    if (!word.empty()) {
      options.push_back(word);
    }
  }
  return options;
}

bool is_made_anew(std::uint32_t fstype) { return fstype == images::AUTO || filesystem(fstype) != nullptr; }

bool is_enabled(const Options& options, const std::string& type) {
  return options.enable_fs.contains(type) || options.enable_fs.contains("all");
}

bool is_single(std::uint32_t fstype) {
  const auto* known = filesystem(fstype);
  return known != nullptr && known->single;
}

std::string filesystem_name(const images::mnt_entry& mount) {
  const auto* known = filesystem(mount.fstype());
  return mount.fstype() == images::AUTO ? mount.fsname() : known != nullptr ? known->name : "";
}

const char* path_below(const images::mnt_entry& whole, const images::mnt_entry& part) {
  if (whole.root_dev() != part.root_dev() || !kernel::is_below(part.root(), whole.root())) {
    return nullptr;
  }
  const char* below = part.root().c_str() + (whole.root() == "/" ? 0 : whole.root().size());
  return *below == '/' ? below + 1 : below;
}

Origins::Origins(const std::vector<images::mnt_entry>& mounts) {
  for (const auto& mount : mounts) {
    by_dev_[mount.root_dev()].push_back(&mount);
  }
  for (auto& [dev, shown] : by_dev_) {
    std::stable_sort(shown.begin(), shown.end(),
                     [](const auto* a, const auto* b) { return a->root().size() < b->root().size(); });
  }
}

const images::mnt_entry* Origins::of(const images::mnt_entry& mount) const {
  const auto& shown = by_dev_.at(mount.root_dev());
  const auto first =
      std::find_if(shown.begin(), shown.end(), [&](const auto* other) { return path_below(*other, mount) != nullptr; });
  return *first == &mount ? nullptr : *first;
}

}  // namespace criu::namespaces
