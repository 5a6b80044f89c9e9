// SPDX-License-Identifier: LGPL-2.1-only
#include <fmt/format.h>
#include <sys/prctl.h>

#include "base/error.hpp"
#include "namespaces/user.hpp"
#include "restore_context.hpp"
#include "task/objects.hpp"

namespace criu::task {

std::uint32_t last_capability() {
  static const std::uint32_t last = [] {
    std::uint32_t capability = 0;
    while (capability < 63 && ::prctl(PR_CAPBSET_READ, capability + 1, 0, 0, 0) >= 0) {
      ++capability;
    }
    return capability;
  }();
  return last;
}

namespace {

// Two words, without the bits this kernel does not know.
template <typename Field>
void copy_set(const Field& field, std::uint32_t (&set)[2]) {
  for (int word = 0; word < 2; ++word) {
    set[word] = word < field.size() ? field.Get(word) : 0;
    for (std::uint32_t bit = 0; bit < 32; ++bit) {
      if (static_cast<std::uint32_t>(word) * 32 + bit > last_capability()) {
        set[word] &= ~(1U << bit);
      }
    }
  }
}

}  // namespace

namespace {

template <typename Field>
void save_set(std::uint64_t set, Field* field) {
  field->Add(static_cast<std::uint32_t>(set));
  field->Add(static_cast<std::uint32_t>(set >> 32));
}

}  // namespace

void save_credentials(const procfs::Status& status, const parasite::ThreadInfo& info, images::creds_entry& entry) {
  entry.set_uid(status.uid[0]), entry.set_euid(status.uid[1]), entry.set_suid(status.uid[2]),
      entry.set_fsuid(status.uid[3]);
  entry.set_gid(status.gid[0]), entry.set_egid(status.gid[1]), entry.set_sgid(status.gid[2]),
      entry.set_fsgid(status.gid[3]);
  save_set(status.cap_inheritable, entry.mutable_cap_inh());
  save_set(status.cap_permitted, entry.mutable_cap_prm());
  save_set(status.cap_effective, entry.mutable_cap_eff());
  save_set(status.cap_bounding, entry.mutable_cap_bnd());
  save_set(status.cap_ambient, entry.mutable_cap_amb());
  entry.set_secbits(info.securebits);
  for (const auto group : status.groups) {
    entry.add_groups(group);
  }
  if (status.no_new_privs) {
    entry.set_no_new_privs(1);
  }
}

void plan_credentials(const RestoreContext& context, const images::creds_entry& entry, restorer::Builder& builder,
                      restorer::Credentials& planned) {
  planned = {};
  planned.uid = entry.uid(), planned.gid = entry.gid();
  planned.euid = entry.euid(), planned.egid = entry.egid();
  planned.suid = entry.suid(), planned.sgid = entry.sgid();
  planned.fsuid = entry.fsuid(), planned.fsgid = entry.fsgid();
  copy_set(entry.cap_inh(), planned.inheritable);
  copy_set(entry.cap_prm(), planned.permitted);
  copy_set(entry.cap_eff(), planned.effective);
  copy_set(entry.cap_bnd(), planned.bounding);
  copy_set(entry.cap_amb(), planned.ambient);
  planned.securebits = entry.secbits();
  planned.no_new_privs = entry.no_new_privs() != 0 ? 1 : 0;
  planned.last_capability = last_capability();
  std::vector<std::uint32_t> groups(entry.groups().begin(), entry.groups().end());
  if (context.users->entry().setgroups_denied()) {
    groups.clear();  // all were born with the only ones there can be
  }
  planned.groups = builder.add(groups);
  planned.group_count = static_cast<std::uint32_t>(groups.size());
}

}  // namespace criu::task
