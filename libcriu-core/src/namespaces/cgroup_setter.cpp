// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/cgroup_setter.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "base/error.hpp"
#include "kernel/cgroups.hpp"
#include "log.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

constexpr const char* subtree_control = "cgroup.subtree_control";

std::set<std::string> words_of(const std::string& text) {
  std::istringstream words(text);
  return {std::istream_iterator<std::string>(words), {}};
}

// CRIU 4.2 leaves some of these uninitialised: they are no modes of files then.
void set_owner(int group, const char* name, const std::string& what, const images::cgroup_perms& perms) {
  constexpr mode_t permissions = 07777;
  struct stat info {};
  if (::fstatat(group, name, &info, 0) != 0 || (info.st_mode & S_IFMT) != (perms.mode() & S_IFMT)) {
    return;
  }
  if (info.st_uid != perms.uid() || info.st_gid != perms.gid()) {
    check(::fchownat(group, name, perms.uid(), perms.gid(), 0), "give to its owner", what);
  }
  if (info.st_mode != perms.mode()) {
    check(::fchmodat(group, name, perms.mode() & permissions, 0), "set the mode of", what);
  }
}

// Files that later kernels have not got any more, with what stands for "no limit" there or is now the only way.
bool says_nothing(const images::cgroup_prop_entry& property) {
  static const std::set<std::string> unlimited = {"max", "-1", "9223372036854771712"};
  return unlimited.contains(property.value()) ||
         (property.name() == "memory.use_hierarchy" && property.value() == "1") ||
         (property.name() == "memory.move_charge_at_immigrate" && property.value() == "0");
}

void switch_controllers(int group, const std::string& what, const std::string& value) {
  const auto wanted = words_of(value), now = words_of(kernel::read_property(group, subtree_control).value_or(""));
  const auto change = [&](char sign, const std::string& controller) {
    if (const int error = kernel::write_property(group, subtree_control, sign + controller); error != 0) {
      throw Error("enable", fmt::format("controller {} below {}", controller, what), error,
                  error == ENOENT ? "it is not enabled above it, or not there on this machine" : "");
    }
  };
  for (const auto& controller : now) {
    if (!wanted.contains(controller)) {
      change('-', controller);
    }
  }
  for (const auto& controller : wanted) {
    if (!now.contains(controller)) {
      change('+', controller);
    }
  }
}

}  // namespace

bool is_early_property(const std::string& name) {
  static const std::set<std::string> early = {"cpuset.cpus",
                                              "cpuset.mems",
                                              "devices.list",
                                              "memory.kmem.limit_in_bytes",
                                              "memory.swappiness",
                                              "memory.oom_control",
                                              "memory.use_hierarchy",
                                              "cgroup.type",
                                              subtree_control,
                                              "cgroup.procs",
                                              "tasks"};
  return early.contains(name);
}

bool is_freezing_property(const std::string& name) { return name == "cgroup.freeze" || name == "freezer.state"; }

void set_directory_owner(int group, const std::string& what, const images::cgroup_perms& perms) {
  set_owner(group, ".", what, perms);
}

void set_property(int group, const std::string& what, const images::cgroup_prop_entry& property) {
  const auto& name = property.name();
  const auto& value = property.value();
  const auto file = fmt::format("{} of {}", name, what);
  if (name.empty() || name.find('/') != std::string::npos) {
    throw Error("corrupt checkpoint", "cgroup.img: " + file, 0);
  }
  if (property.has_perms()) {
    set_owner(group, name.c_str(), file, property.perms());
  }
  if (name == "cgroup.procs" || name == "tasks") {
    if (property.has_perms()) {
      set_owner(group, "cgroup.threads", file, property.perms());
    }
    return;
  }
  if (name == "cgroup.type" && value != "threaded") {
    return;
  }
  const auto now = kernel::read_property(group, name);
  if (now == value) {
    return;
  }
  if (!now && errno == ENOENT) {
    if (says_nothing(property)) {
      LOG_WARN("{} is not there on this kernel", file);
      return;
    }
    throw Error("set", file, ENOENT,
                fmt::format("the controller {} is not there or not enabled", name.substr(0, name.find('.'))));
  }
  if (name == subtree_control) {
    return switch_controllers(group, what, value);
  }
  if (const int error = kernel::write_property(group, name, value); error != 0) {
    throw Error("set", fmt::format("{} to {}", file, value), error);
  }
}

namespace {

void collect_controllers(const images::cgroup_dir_entry& dir, std::set<std::string>& all) {
  for (const auto& property : dir.properties()) {
    all.insert(property.name().substr(0, property.name().find('.')));
  }
  for (const auto& child : dir.children()) {
    collect_controllers(child, all);
  }
}

}  // namespace

void enable_controllers_for(int group, const images::cgroup_dir_entry& dir) {
  std::set<std::string> needed;
  collect_controllers(dir, needed);
  for (const auto& controller : words_of(kernel::read_property(group, "cgroup.controllers").value_or(""))) {
    if (needed.contains(controller)) {
      kernel::write_property(group, subtree_control, "+" + controller);  // what is missing is named when it is set
    }
  }
}

void inherit_cpuset(int group, int above) {
  for (const char* name : {"cpuset.cpus", "cpuset.mems"}) {
    const auto theirs = kernel::read_property(above, name);
    if (theirs && kernel::read_property(group, name) == "") {
      kernel::write_property(group, name, *theirs);
    }
  }
}

}  // namespace criu::namespaces
