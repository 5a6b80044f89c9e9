// SPDX-License-Identifier: LGPL-2.1-only
// Giving one group back what an image says of it: owners, modes, properties.
#pragma once

#include <cgroup.pb.h>

#include <string>

namespace criu::namespaces {

// Whether it has to be set before tasks are in: it cannot be changed later, or tasks could not come in without it.
bool is_early_property(const std::string& name);
// Whether it freezes.
bool is_freezing_property(const std::string& name);

void set_directory_owner(int group, const std::string& what, const images::cgroup_perms&);
// What is so already is not written. Errors name the group (`what`), the property and the value.
void set_property(int group, const std::string& what, const images::cgroup_prop_entry&);
// Has the groups below it use the controllers that `dir`, which is to be there, has properties of, as far as it can.
void enable_controllers_for(int group, const images::cgroup_dir_entry& dir);
// Nobody can enter a group of cpuset without these.
void inherit_cpuset(int group, int above);

}  // namespace criu::namespaces
