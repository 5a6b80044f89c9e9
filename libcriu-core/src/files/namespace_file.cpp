// SPDX-License-Identifier: LGPL-2.1-only
// Descriptors of namespaces (/proc/PID/ns/…): of those that tasks of the tree live in.
#include "files/namespace_file.hpp"

#include <sched.h>

#include <algorithm>
#include <cstring>

#include "files/common.hpp"
#include "files/saver.hpp"
#include "namespaces/restored_mounts.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

struct NamespaceKind {
  const char* name;  // as in /proc/PID/ns, and at the beginning of the link
  std::uint32_t flag;
  std::uint32_t (images::task_kobj_ids_entry::*id)() const;
};

constexpr NamespaceKind namespace_kinds[] = {
    {"net", 0x40000000, &images::task_kobj_ids_entry::net_ns_id},
    {"uts", 0x04000000, &images::task_kobj_ids_entry::uts_ns_id},
    {"ipc", 0x08000000, &images::task_kobj_ids_entry::ipc_ns_id},
    {"pid", 0x20000000, &images::task_kobj_ids_entry::pid_ns_id},
    {"mnt", 0x00020000, &images::task_kobj_ids_entry::mnt_ns_id},
    {"user", 0x10000000, &images::task_kobj_ids_entry::user_ns_id},
    {"time", 0x00000080, &images::task_kobj_ids_entry::time_ns_id},
    {"cgroup", 0x02000000, &images::task_kobj_ids_entry::cgroup_ns_id},
};

const NamespaceKind* kind_of_link(std::string_view link) {
  const auto* found = std::find_if(std::begin(namespace_kinds), std::end(namespace_kinds), [&](const auto& kind) {
    return link.starts_with(kind.name) && link.substr(std::strlen(kind.name)).starts_with(":[");
  });
  return found == std::end(namespace_kinds) ? nullptr : found;
}

void save(Saver&, const Description& description, images::file_entry& entry) {
  auto& file = *entry.mutable_nsf();
  file.set_id(entry.id());
  file.set_ns_cflag(kind_of_link(description.link)->flag);
  file.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
}

// A namespace may be one that a later task of the tree lives in.
void save_late(Saver& saver, const Description& description, images::file_entry& entry) {
  const auto* known = saver.dump().namespaces;
  const auto found = known->find(description.link);
  if (found == known->end()) {
    throw Error("cannot dump", description.what() + " is a namespace that no task of the tree lives in", 0);
  }
  entry.mutable_nsf()->set_ns_id(found->second);
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->nsf();
  const auto what = fmt::format("namespace {} (file {})", entry.ns_id(), entry.id());
  const auto* kind = std::find_if(std::begin(namespace_kinds), std::end(namespace_kinds),
                                  [&](const auto& candidate) { return candidate.flag == entry.ns_cflag(); });
  if (kind == std::end(namespace_kinds)) {
    throw Error("corrupt checkpoint", fmt::format("{} is of kind {:#x}", what, entry.ns_cflag()), 0);
  }
  const auto& tasks = context.checkpoint.tasks;
  const auto lives_there = std::find_if(tasks.begin(), tasks.end(), [&](const auto& task) {
    return task->alive() && (task->ids.*kind->id)() == entry.ns_id();
  });
  if (lives_there == tasks.end() && (context.checkpoint.inventory.root_ids().*kind->id)() != entry.ns_id()) {
    throw Error("cannot restore", fmt::format("{}: no task lives in that {} namespace", what, kind->name), 0);
  }
  // A task enters its mounts at the very end.
  if (kind->flag == CLONE_NEWNS && context.mounts != nullptr) {
    if (const int made = context.mounts->namespace_of(entry.ns_id()); made >= 0) {
      return one(reopen(made, static_cast<int>(entry.flags()), what));
    }
  }
  const auto path = lives_there == tasks.end() ? fmt::format("/proc/self/ns/{}", kind->name)
                                               : fmt::format("/proc/{}/ns/{}", (*lives_there)->pid(), kind->name);
  return one(base::Fd(check(::open(path.c_str(), static_cast<int>(entry.flags()) | O_CLOEXEC), "open", what)));
}

}  // namespace

const Kind namespace_kind = {
    .type = images::NS,
    .name = "namespace",
    .recognise = [](const Description& description) { return kind_of_link(description.link) != nullptr; },
    .save = save,
    .save_late = save_late,
    .make = make,
};

}  // namespace criu::files
