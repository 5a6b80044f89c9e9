// SPDX-License-Identifier: LGPL-2.1-only
#include "kernel/cgroups.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <memory>

#include "base/error.hpp"

namespace criu::kernel {

using base::check;

std::vector<Membership> parse_memberships(std::string_view text) {
  std::vector<Membership> all;
  while (!text.empty()) {
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    // The path may hold anything, the controllers no colon.
    const auto first = line.find(':'), second = line.find(':', first == line.npos ? first : first + 1);
    if (second == line.npos) {
      throw base::Error("read /proc", "a control group was expected at '" + std::string(line) + "'", 0);
    }
    all.push_back({std::string(line.substr(first + 1, second - first - 1)), std::string(line.substr(second + 1))});
  }
  std::sort(all.begin(), all.end(),
            [](const Membership& a, const Membership& b) { return a.controllers < b.controllers; });
  return all;
}

std::vector<std::string> split_controllers(const std::string& controllers) {
  std::vector<std::string> names(1);
  for (const char c : controllers) {
    if (c == ',') {
      names.emplace_back();
    } else {
      names.back() += c;
    }
  }
  return names;
}

namespace {

std::string of_controllers(const std::string& controllers) {
  return controllers.empty() ? "control groups of version 2" : "control groups of " + controllers;
}

base::Fd open_in_yard(const std::string& controllers, int yard) {
  constexpr std::string_view named = "name=";
  const auto what = of_controllers(controllers) + " in the directory of --cgroup-yard";
  const auto* directory = controllers.empty() ? "unified" : controllers.c_str();
  base::Fd root(::openat(yard, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!root && controllers.starts_with(named)) {
    root.reset(::openat(yard, controllers.c_str() + named.size(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  check(root.get(), "open", what);
  return root;
}

}  // namespace

base::Fd open_hierarchy(const std::string& controllers, int yard) {
  if (yard >= 0) {
    return open_in_yard(controllers, yard);
  }
  constexpr std::string_view named = "name=";
  const auto what = of_controllers(controllers);
  const base::Fd context(check(::fsopen(controllers.empty() ? "cgroup2" : "cgroup", FSOPEN_CLOEXEC), "open", what));
  for (const auto& name : split_controllers(controllers)) {
    if (name.empty()) {
      continue;
    }
    if (name.starts_with(named)) {
      check(::fsconfig(context.get(), FSCONFIG_SET_STRING, "name", name.c_str() + named.size(), 0), "name", what);
    } else {
      check(::fsconfig(context.get(), FSCONFIG_SET_FLAG, name.c_str(), nullptr, 0), "name", what);
    }
  }
  check(::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), "open", what);
  const base::Fd mount(check(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0), "open", what));
  // That of the mount is a mere place and not for reading.
  return base::Fd(check(::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open", what));
}

base::Fd try_open_group(int root, const std::string& path) {
  const auto below = path.substr(std::min(path.size(), path.find_first_not_of('/')));
  return base::Fd(::openat(root, below.empty() ? "." : below.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

std::vector<std::string> children_of_group(int group) {
  std::vector<std::string> children;
  const int own = check(::openat(group, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open", "a control group");
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::fdopendir(own), ::closedir);
  while (const auto* entry = ::readdir(directory.get())) {
    if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
      children.emplace_back(entry->d_name);
    }
  }
  std::sort(children.begin(), children.end());
  return children;
}

namespace {

// The one digit that can be written of its lines.
std::string oom_kill_disable(const std::string& text) {
  constexpr std::string_view key = "oom_kill_disable ";
  const auto at = text.find(key);
  return at == std::string::npos ? text : text.substr(at + key.size(), 1);
}

// "No limit" has no one spelling: the kernel takes -1 everywhere.
std::string without_saturation(std::string text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = end == text.data() + text.size() && !text.empty();
  const bool too_large = error == std::errc::result_out_of_range ||
                         number >= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  return whole && too_large ? "-1" : text;
}

}  // namespace

std::optional<std::string> read_property(int group, const std::string& name) {
  const base::Fd file(::openat(group, name.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    return std::nullopt;
  }
  std::string text;
  char piece[4096];
  ssize_t got = 0;
  while ((got = ::read(file.get(), piece, sizeof piece)) > 0) {
    text.append(piece, static_cast<std::size_t>(got));
  }
  if (got < 0) {
    return std::nullopt;  // there, but of no use in this group
  }
  while (!text.empty() && text.back() == '\n') {
    text.pop_back();
  }
  return name == "memory.oom_control" ? oom_kill_disable(text) : without_saturation(std::move(text));
}

namespace {

int write_text(int group, const char* name, std::string_view text) {
  const base::Fd file(::openat(group, name, O_WRONLY | O_CLOEXEC));
  return !file || ::write(file.get(), text.data(), text.size()) < 0 ? errno : 0;
}

}  // namespace

int write_property(int group, const std::string& name, const std::string& value) {
  // Rules for devices are not written where they are read: all are taken away, then the listed ones given.
  const bool devices = name == "devices.list";
  if (devices) {
    if (const int error = write_text(group, "devices.deny", "a"); error != 0) {
      return error;
    }
  }
  std::string_view rest = value;
  do {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (const int error =
            line.empty() && devices ? 0 : write_text(group, devices ? "devices.allow" : name.c_str(), line);
        error != 0) {
      return error;
    }
  } while (!rest.empty());
  return 0;
}

bool has_device_programs(int group) {
  union bpf_attr query {};
  query.query.target_fd = static_cast<std::uint32_t>(group);
  query.query.attach_type = BPF_CGROUP_DEVICE;
  return ::syscall(SYS_bpf, BPF_PROG_QUERY, &query, sizeof query) == 0 && query.query.prog_cnt > 0;
}

}  // namespace criu::kernel
