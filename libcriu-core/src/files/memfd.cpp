// SPDX-License-Identifier: LGPL-2.1-only
#include "files/memfd.hpp"

#include <unistd.h>

#include "files/common.hpp"
#include "files/saver.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;

namespace {

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  auto& memfd = *entry.mutable_memfd();
  memfd.set_id(entry.id());
  memfd.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  memfd.set_pos(static_cast<std::uint64_t>(description.info.pos));
  memfd.set_inode_id(
      saver.shared_objects().save(description.own, description.stat, description.link, description.what()));
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->memfd();
  const auto what = fmt::format("memfd (file {})", entry.id());
  const auto& object = context.shared_objects.memfd(entry.inode_id(), what);
  constexpr unsigned creation = O_CREAT | O_EXCL | O_TRUNC | O_DIRECTORY | (O_TMPFILE & ~O_DIRECTORY) | O_NOFOLLOW;
  auto fd = reopen(object.fd.get(), static_cast<int>(entry.flags() & ~creation), what);
  if ((entry.flags() & O_PATH) == 0 && entry.pos() != 0) {
    check(::lseek(fd.get(), static_cast<off_t>(entry.pos()), SEEK_SET), "seek", what);
  }
  return one(std::move(fd));
}

}  // namespace

const Kind memfd_kind = {
    .type = images::MEMFD,
    .name = "memory file",
    .recognise =
        [](const Description& description) { return memory::is_memory_object(description.link, description.stat); },
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_memfd()->mutable_fown(); },
    .make = make,
};

}  // namespace criu::files
