// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/cgroups.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/error.hpp"
#include "log.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

// While it lives, this thread is in another control group namespace.
class Visit {
 public:
  explicit Visit(const base::Fd& ns) {
    if (ns) {
      before_ = procfs::Task(::getpid()).open("ns/cgroup", O_RDONLY);
      check(::setns(ns.get(), CLONE_NEWCGROUP), "enter a control group namespace");
    }
  }
  ~Visit() {
    if (before_ && ::setns(before_.get(), CLONE_NEWCGROUP) != 0) {
      LOG_ERROR("cannot go back to the control group namespace: {}", std::strerror(errno));
    }
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

 private:
  base::Fd before_;
};

std::string text_of(pid_t pid, pid_t tid) {
  const auto path = pid == tid ? fmt::format("/proc/{}/cgroup", pid) : fmt::format("/proc/{}/task/{}/cgroup", pid, tid);
  return procfs::read_file(AT_FDCWD, path.c_str(), path);
}

// "/" is no name of its own but the beginning of all others.
std::string_view below_root(std::string_view path) {
  while (path.starts_with('/')) {
    path.remove_prefix(1);
  }
  return path;
}

bool is_at_or_below(std::string_view path, std::string_view top) {
  return top.empty() || path == top || (path.starts_with(top) && path[top.size()] == '/');
}

void put(const struct stat& from, images::cgroup_perms& to) {
  to.set_mode(from.st_mode);
  to.set_uid(from.st_uid);
  to.set_gid(from.st_gid);
}

}  // namespace

const std::string* cgroup_root_for(const Options& options, const std::string& controllers) {
  const std::string* root = nullptr;
  for (const auto& name : kernel::split_controllers(controllers)) {
    const auto found = options.cgroup_roots.find(name);
    if (found == options.cgroup_roots.end()) {
      continue;
    }
    if (root != nullptr && *root != found->second) {
      throw Error(fmt::format("CG paths mismatch: {} {}", *root, found->second), {}, 0,
                  "control groups of " + controllers + " are one hierarchy");
    }
    root = &found->second;
  }
  return root != nullptr ? root : options.cgroup_root ? &*options.cgroup_root : nullptr;
}

Cgroups::Cgroups(const Options& options, const Home& home, pid_t root) : options_(options) {
  if (options.unprivileged) {
    return;
  }
  if (!options.cgroup_props.empty()) {
    props_.apply(options.cgroup_props);
  }
  if (!options.cgroup_props_file.empty()) {
    props_.apply_file(options.cgroup_props_file);
  }
  if (!options.cgroup_yard.empty()) {
    yard_ = base::Fd(check(::open(options.cgroup_yard.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC),
                           "open the directory of --cgroup-yard", options.cgroup_yard));
  }
  if (home.ours().at("cgroup") != home.theirs().at("cgroup")) {
    ours_ = procfs::Task(::getpid()).open("ns/cgroup", O_RDONLY);
    theirs_ = procfs::Task(root).open("ns/cgroup", O_RDONLY);
  }
  const auto own = procfs::read_file(AT_FDCWD, "/proc/self/cgroup", "/proc/self/cgroup");
  sets_.push_back({.id = 1, .groups = memberships(own), .outside = {}});
  sets_.front().whole = false;
  by_text_.emplace(own, 1);
}

bool Cgroups::wanted(const kernel::Membership& group) const {
  const auto& only = options_.cgroup_controllers;
  const auto names = kernel::split_controllers(group.controllers);
  return only.empty() || std::any_of(names.begin(), names.end(), [&](const std::string& name) {
           return std::find(only.begin(), only.end(), name) != only.end();
         });
}

std::vector<kernel::Membership> Cgroups::memberships(const std::string& text) const {
  auto all = kernel::parse_memberships(text);
  std::erase_if(all, [this](const kernel::Membership& group) { return !wanted(group); });
  return all;
}

// Most threads are where others are, and then nothing is looked at but whether the text is the same.
std::uint32_t Cgroups::set_with(const std::string& text, pid_t tid) {
  const auto known = by_text_.find(text);
  if (known != by_text_.end()) {
    if (auto& set = sets_[known->second - 1]; set.member == 0) {
      set.member = tid;
    }
    return known->second;
  }
  auto groups = memberships(text);
  const auto same = [](const kernel::Membership& a, const kernel::Membership& b) {
    return a.controllers == b.controllers && a.path == b.path;
  };
  const auto equal = std::find_if(sets_.begin(), sets_.end(), [&](const Set& set) {
    return std::equal(set.groups.begin(), set.groups.end(), groups.begin(), groups.end(), same);
  });
  if (equal != sets_.end()) {
    return by_text_.emplace(text, equal->id).first->second;
  }
  const auto id = static_cast<std::uint32_t>(sets_.size()) + 1;
  sets_.push_back({.id = id, .groups = std::move(groups), .outside = {}});
  sets_.back().member = tid;
  by_text_.emplace(text, id);
  return id;
}

void Cgroups::survey(const task::FrozenTree& tree) {
  if (sets_.empty()) {
    return;  // without privileges groups are nothing to us
  }
  {
    const Visit outside(ours_);
    for (const auto& task : tree.tasks()) {
      if (task.state == TaskState::dead) {
        continue;
      }
      for (const auto tid : task.tids) {
        const auto set = set_with(text_of(task.pid, tid), tid);
        of_thread_[tid] = set;
        const auto before = of_thread_.find(tid == task.pid ? task.ppid : task.pid);
        mixed_ = mixed_ || (set == 1 && before != of_thread_.end() && before->second != 1);
      }
    }
  }
  if (apart()) {
    look_from_inside();
  }
}

// What is missing in front of a path, seen from inside, is what the namespace hides.
void Cgroups::look_from_inside() {
  const Visit inside(theirs_);
  for (auto& set : sets_) {
    if (set.member != 0) {
      measure_hidden(set);
    }
  }
  auto& ours = sets_.front();
  if (std::all_of(ours.outside.begin(), ours.outside.end(), [](std::size_t hidden) { return hidden == 0; })) {
    return;
  }
  // The same groups, but not as this process sees them.
  auto theirs = ours;
  theirs.id = static_cast<std::uint32_t>(sets_.size()) + 1;
  theirs.whole = true;
  ours.member = 0;
  for (auto& [tid, set] : of_thread_) {
    set = set == 1 ? theirs.id : set;
  }
  sets_.push_back(std::move(theirs));
  mixed_ = false;
}

void Cgroups::measure_hidden(Set& set) const {
  // In /proc the number of a thread stands for itself, whatever its process is.
  const auto seen = memberships(text_of(set.member, set.member));
  for (const auto& group : set.groups) {
    const auto there = std::find_if(seen.begin(), seen.end(), [&](const kernel::Membership& other) {
      return other.controllers == group.controllers;
    });
    const std::string part = there == seen.end() || there->path == "/" ? "" : there->path;
    if (there == seen.end() || part.starts_with("/..") || !group.path.ends_with(part)) {
      throw Error("cannot dump", fmt::format("thread {}", set.member), 0,
                  fmt::format("its control group {}:{} is not inside of its control group namespace", group.controllers,
                              group.path));
    }
    set.outside.push_back(group.path == "/" ? 0 : group.path.size() - part.size());
  }
}

std::uint32_t Cgroups::set_of(pid_t tid) const {
  const auto found = of_thread_.find(tid);
  return found == of_thread_.end() ? 1 : found->second;
}

bool Cgroups::is_own(const kernel::Membership& group) const {
  const auto& own = sets_.front().groups;
  return std::any_of(own.begin(), own.end(), [&](const kernel::Membership& ours) {
    return ours.controllers == group.controllers && ours.path == group.path;
  });
}

// The groups with which the walk through a hierarchy begins.
std::vector<Cgroups::Top> Cgroups::tops(const std::string& controllers) const {
  std::vector<Top> all;
  if (const auto* root = cgroup_root_for(options_, controllers)) {
    all.push_back({std::string(below_root(*root)), true});
  }
  for (const auto& set : sets_) {
    for (std::size_t i = 0; i < set.groups.size(); ++i) {
      if (set.groups[i].controllers != controllers || (set.id == 1 && !mixed_)) {
        continue;
      }
      const auto hidden = i < set.outside.size() ? set.outside[i] : 0;
      const std::string path(below_root(hidden > 0 ? set.groups[i].path.substr(0, hidden) : set.groups[i].path));
      // What is below the root of a hierarchy is everybody's, and what is below our own group is not the tree's.
      const bool ours = hidden == 0 && is_own(set.groups[i]);
      all.push_back({path, set.whole && !path.empty() && !ours});
    }
  }
  std::vector<Top> tops;
  for (const auto& top : all) {
    const auto covers = [&](const Top& other) {
      return other.path == top.path ? other.whole || !top.whole : other.whole && is_at_or_below(top.path, other.path);
    };
    if (std::none_of(tops.begin(), tops.end(), covers)) {
      std::erase_if(tops, [&](const Top& other) {
        return other.path == top.path || (top.whole && is_at_or_below(other.path, top.path));
      });
      tops.push_back(top);
    }
  }
  return tops;
}

namespace {

// One group after the other, as they hang below each other.
class Walk {
 public:
  Walk(const std::string& controllers, const CgroupProps& props, const std::set<std::uint64_t>& frozen)
      : v2_(controllers.empty()), names_(kernel::split_controllers(controllers)), props_(props), frozen_(frozen) {}

  bool threaded() const { return !v2_ || threaded_; }

  void save(int group, const std::string& path, const std::string& name, bool whole, images::cgroup_dir_entry& to) {
    struct stat info {};
    check(::fstat(group, &info), "stat", "control group /" + path);
    to.set_dir_name(name);
    put(info, *to.mutable_dir_perms());
    save_properties(group, info, to);
    if (v2_ && kernel::has_device_programs(group)) {
      LOG_WARN(
          "the device rules of control group /{} are programs and not saved: who makes it before the restore has "
          "to set them, as container engines do",
          path);
      to.set_device_programs(true);
    }
    for (const auto& child : whole ? kernel::children_of_group(group) : std::vector<std::string>()) {
      if (const auto below = kernel::try_open_group(group, child)) {  // it may be gone meanwhile
        save(below.get(), fmt::format("{}/{}", path, child), child, true, *to.add_children());
      }
    }
  }

 private:
  std::vector<std::string> names_here(int group) const {
    if (!v2_) {
      return props_.of_v1(names_);
    }
    const auto enabled = kernel::read_property(group, "cgroup.controllers").value_or("");
    std::vector<std::string> names(1);
    for (const char c : enabled) {
      if (c == ' ') {
        names.emplace_back();
      } else {
        names.back() += c;
      }
    }
    return props_.of_v2(names);
  }

  void save_properties(int group, const struct stat& directory, images::cgroup_dir_entry& to) {
    for (const auto& name : names_here(group)) {
      save_property(group, directory, name, to);
    }
    // Who may move tasks into it is part of what a group is delegated for.
    struct stat procs {};
    if (v2_ && ::fstatat(group, "cgroup.procs", &procs, 0) == 0 &&
        (procs.st_uid != 0 || procs.st_gid != 0 || (procs.st_mode & 0777) != 0644)) {
      auto& property = *to.add_properties();
      property.set_name("cgroup.procs");
      property.set_value("");
      put(procs, *property.mutable_perms());
    }
  }

  void save_property(int group, const struct stat& directory, const std::string& name, images::cgroup_dir_entry& to) {
    struct stat info {};
    if (::fstatat(group, name.c_str(), &info, 0) != 0) {
      return;
    }
    std::optional<std::string> value = "";
    if (name == "freezer.state" || name == "cgroup.freeze") {
      // What it is by its own, whatever the groups above do to it and whatever this dump does.
      const bool own = frozen_.contains(directory.st_ino) ||
                       kernel::read_property(group, v2_ ? "cgroup.freeze" : "freezer.self_freezing") == "1";
      value = v2_ ? (own ? "1" : "0") : (own ? "FROZEN" : "THAWED");
    } else if (name != "cgroup.procs" && name != "tasks") {
      value = kernel::read_property(group, name);
    }
    if (!value) {
      return;
    }
    threaded_ = threaded_ || (name == "cgroup.type" && *value == "threaded");
    auto& property = *to.add_properties();
    property.set_name(name);
    property.set_value(*value);
    put(info, *property.mutable_perms());
  }

  bool v2_;
  bool threaded_ = false;
  std::vector<std::string> names_;
  const CgroupProps& props_;
  const std::set<std::uint64_t>& frozen_;
};

}  // namespace

void Cgroups::save_hierarchy(const std::string& controllers, const std::set<std::uint64_t>& frozen,
                             images::cg_controller_entry& to) const {
  for (const auto& name : kernel::split_controllers(controllers)) {
    to.add_cnames(name);
  }
  const auto root = kernel::open_hierarchy(controllers, yard_ ? yard_.get() : -1);
  Walk walk(controllers, props_, frozen);
  for (const auto& top : tops(controllers)) {
    const auto group = kernel::try_open_group(root.get(), top.path);
    check(group.get(), "open", fmt::format("control group {}:/{}", controllers, top.path));
    walk.save(group.get(), top.path, top.path, top.whole, *to.add_dirs());
  }
  to.set_is_threaded(walk.threaded());
}

void Cgroups::save(const image::Directory& images, const std::set<std::uint64_t>& frozen) {
  const auto elsewhere = [](const auto& thread) { return thread.second != 1; };
  if (std::none_of(of_thread_.begin(), of_thread_.end(), elsewhere)) {
    return;
  }
  images::cgroup_entry entry;
  std::set<std::string> hierarchies;
  for (const auto& set : sets_) {
    if (set.member == 0 || (set.id == 1 && !mixed_)) {
      continue;
    }
    auto& saved = *entry.add_sets();
    saved.set_id(set.id);
    for (std::size_t i = 0; i < set.groups.size(); ++i) {
      auto& member = *saved.add_ctls();
      member.set_name(set.groups[i].controllers);
      member.set_path(set.groups[i].path);
      if (i < set.outside.size() && set.outside[i] != 0) {
        member.set_cgns_prefix(static_cast<std::uint32_t>(set.outside[i]));
      }
      hierarchies.insert(set.groups[i].controllers);
    }
  }
  if (options_.manage_cgroups != CgroupMode::ignore) {
    const Visit outside(ours_);
    for (const auto& controllers : hierarchies) {
      save_hierarchy(controllers, frozen, *entry.add_controllers());
    }
  }
  images.put(image::type::cgroup, 0, entry);
}

}  // namespace criu::namespaces
