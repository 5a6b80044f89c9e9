// SPDX-License-Identifier: LGPL-2.1-only
#include "files/signalfd.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include "files/common.hpp"

namespace criu::files {

using base::check;

namespace {

void save(Saver&, const Description& description, images::file_entry& entry) {
  auto& signalfd = *entry.mutable_sgfd();
  signalfd.set_id(entry.id());
  signalfd.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  signalfd.set_sigmask(kernel::number(description.info.text, "sigmask", 16));
}

std::vector<base::Fd> make(RestoreContext&, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->sgfd();
  const auto what = fmt::format("signalfd (file {})", entry.id());
  const std::uint64_t mask = entry.sigmask();
  base::Fd fd(static_cast<int>(check(::syscall(SYS_signalfd4, -1, &mask, sizeof mask, O_CLOEXEC), "make", what)));
  set_flags(fd.get(), entry.flags(), what);
  return one(std::move(fd));
}

}  // namespace

const Kind signalfd_kind = {
    .type = images::SIGNALFD,
    .name = "signalfd",
    .recognise = [](const Description& description) { return description.link == "anon_inode:[signalfd]"; },
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_sgfd()->mutable_fown(); },
    .make = make,
};

}  // namespace criu::files
