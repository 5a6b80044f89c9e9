// SPDX-License-Identifier: LGPL-2.1-only
#include "files/eventfd.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include "files/common.hpp"

namespace criu::files {

using base::check;

namespace {

void save(Saver&, const Description& description, images::file_entry& entry) {
  auto& eventfd = *entry.mutable_efd();
  eventfd.set_id(entry.id());
  eventfd.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  eventfd.set_counter(kernel::number(description.info.text, "eventfd-count", 16));
  // Before Linux 6.5 the mode cannot be seen.
  if (kernel::field(description.info.text, "eventfd-semaphore") == "1") {
    eventfd.set_semaphore(true);
  }
}

std::vector<base::Fd> make(RestoreContext&, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->efd();
  const auto what = fmt::format("eventfd (file {})", entry.id());
  base::Fd fd(check(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | (entry.semaphore() ? EFD_SEMAPHORE : 0)), "make", what));
  // The call takes 32 bits to begin with, a write takes all of them.
  if (const std::uint64_t counter = entry.counter(); counter != 0) {
    check(::write(fd.get(), &counter, sizeof counter), "set the counter of", what);
  }
  check(::fcntl(fd.get(), F_SETFL, static_cast<int>(entry.flags() & settable_flags)), "set flags of", what);
  return one(std::move(fd));
}

}  // namespace

const Kind eventfd_kind = {
    .type = images::EVENTFD,
    .name = "eventfd",
    .recognise = [](const Description& description) { return description.link == "anon_inode:[eventfd]"; },
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_efd()->mutable_fown(); },
    .make = make,
};

}  // namespace criu::files
