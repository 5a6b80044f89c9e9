// SPDX-License-Identifier: LGPL-2.1-only
// Control groups as the kernel shows them: hierarchies of directories, reached without being mounted anywhere.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"

namespace criu::kernel {

// One line of /proc/PID/cgroup: the group that a task is in, in one hierarchy.
struct Membership {
  std::string controllers;  // of the hierarchy: "cpu,cpuacct", "name=systemd"; "": that of version 2
  std::string path;
};
// Sorted by controllers.
std::vector<Membership> parse_memberships(std::string_view text);

// "cpu,cpuacct" → cpu, cpuacct; "" → "".
std::vector<std::string> split_controllers(const std::string& controllers);

// The root directory of a hierarchy, as the control group namespace of this thread shows it. It must be one that
// /proc/self/cgroup lists: asked for another, the kernel would make it. `yard`: a directory where all are mounted; -1:
// it is mounted nowhere.
base::Fd open_hierarchy(const std::string& controllers, int yard);

// A group below that root; `path` with or without its first slash. Not there: none, with errno.
base::Fd try_open_group(int root, const std::string& path);
std::vector<std::string> children_of_group(int group);

// What a file of a group says, in the form that images have it. Nothing: there is no such file, or it is not for
// reading.
std::optional<std::string> read_property(int group, const std::string& name);
// Puts it there; what has several lines, line by line. An errno, or 0.
int write_property(int group, const std::string& name, const std::string& value);

// Whether programs decide about devices here: how version 2 has device rules.
bool has_device_programs(int group);

}  // namespace criu::kernel
