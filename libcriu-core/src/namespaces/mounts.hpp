// SPDX-License-Identifier: LGPL-2.1-only
// The mounts of a tree in a mount namespace of its own.
#pragma once

#include <mnt.pb.h>

#include <string>
#include <vector>

#include "dump_context.hpp"
#include "image/directory.hpp"
#include "kernel/mounts.hpp"
#include "kernel/procfs.hpp"
#include "namespaces/mount_sources.hpp"

namespace criu::namespaces {

// What cannot be made again becomes an obstacle.
void save_mounts(DumpContext&, const procfs::Task& root, std::uint32_t ns_id, const MountSources&);

// ---- what dump and restore have in common

// "a,b=c" → "a", "b=c".
std::vector<std::string> options_in(const std::string& list);
// Those that a restore can only make by binding what is there, or what is given from outside.
bool is_made_anew(std::uint32_t fstype);
// Where on the one that shows more of a filesystem the root of the other is ("" the same); nullptr: it is not there.
const char* path_below(const images::mnt_entry& whole, const images::mnt_entry& part);
// The mount that another can be bound from: of the same filesystem, showing at least as much. nullptr: there is none.
const images::mnt_entry* origin_of(const images::mnt_entry&, const std::vector<images::mnt_entry>&);
inline bool is_root(const images::mnt_entry& mount) { return mount.mountpoint() == "/"; }

}  // namespace criu::namespaces
