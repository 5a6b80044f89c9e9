// SPDX-License-Identifier: LGPL-2.1-only
#include "files/eventfd.hpp"

#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "files/common.hpp"
#include "files/saver.hpp"

namespace criu::files {

using base::check;

namespace {

// What a read gives, without ever waiting for it: somebody outside the tree may have been quicker.
std::uint64_t take(const Description& description) {
  std::uint64_t value = 0;
  const iovec room{&value, sizeof value};
  check(::preadv2(description.own, &room, 1, -1, RWF_NOWAIT), "read", description.what());
  return value;
}

void give(const Description& description, std::uint64_t value) {
  if (value != 0) {
    check(::write(description.own, &value, sizeof value), "write to", description.what());
  }
}

// Whether a read takes one instead of all, found out by a read of two or more; the counter is as before when this
// returns. Who polls the descriptor edge-triggered may see one event more.
bool takes_one(const Description& description, std::uint64_t counter) {
  const std::uint64_t added = counter < 2 ? 2 : 0;
  give(description, added);
  const auto taken = take(description);
  if (taken != 1) {
    give(description, taken - added);
  } else if (added != 0) {
    take(description);
  } else {
    give(description, 1);
  }
  return taken == 1;
}

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  auto& eventfd = *entry.mutable_efd();
  eventfd.set_id(entry.id());
  eventfd.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  eventfd.set_counter(kernel::number(description.info.text, "eventfd-count", 16));
  // Linux 6.5. Before, the mode cannot be seen, and a tree that goes on meanwhile is not to be disturbed.
  const auto mode = kernel::field(description.info.text, "eventfd-semaphore");
  if (mode == "1" || (!mode && !saver.dump().look_only && takes_one(description, eventfd.counter()))) {
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
