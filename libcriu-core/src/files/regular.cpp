// SPDX-License-Identifier: LGPL-2.1-only
#include "files/regular.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/error.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// A file that changed since the dump would be mapped or read as if it were the old one.
void check_same(const RestoreContext& context, int fd, const images::reg_file_entry& entry) {
  struct stat st {};
  check(::fstat(fd, &st), "stat", entry.name());
  if (entry.has_size() && static_cast<std::uint64_t>(st.st_size) != entry.size()) {
    throw Error("file changed since the dump", fmt::format("File {} has bad size {} (expect {})", entry.name(), st.st_size, entry.size()), 0);
  }
  if (entry.has_mode() && (st.st_mode & S_IFMT) != (entry.mode() & S_IFMT)) {
    throw Error("file changed since the dump", fmt::format("File {} has bad mode {:#o} (expect {:#o})", entry.name(), st.st_mode, entry.mode()), 0);
  }
  if (entry.has_mode() && !context.options.skip_file_rwx_check && st.st_mode != entry.mode()) {
    throw Error("file changed since the dump", fmt::format("File {} has bad mode {:#o} (expect {:#o})", entry.name(), st.st_mode, entry.mode()), 0,
                "--skip-file-rwx-check accepts other permissions");
  }
}

base::Fd open_checked(const RestoreContext& context, const images::reg_file_entry& entry, int flags) {
  if (entry.name().empty() || entry.name().front() != '/') {
    throw Error("corrupt checkpoint", fmt::format("file {} has the path '{}'", entry.id(), entry.name()), 0);
  }
  base::Fd fd(check(::open(entry.name().c_str(), flags), "open", entry.name()));
  check_same(context, fd.get(), entry);
  return fd;
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->reg();
  constexpr unsigned creation = O_CREAT | O_EXCL | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
  const auto flags = static_cast<int>(entry.flags() & ~creation);
  auto fd = open_checked(context, entry, flags | O_NOCTTY);
  if ((flags & O_PATH) == 0 && entry.pos() != ~std::uint64_t{0} && entry.pos() != 0) {
    check(::lseek(fd.get(), static_cast<off_t>(entry.pos()), SEEK_SET), "seek", entry.name());
  }
  std::vector<base::Fd> made;
  made.push_back(std::move(fd));
  return made;
}

}  // namespace

base::Fd open_path(const RestoreContext& context, std::uint32_t id, int flags, const std::string& referrer) {
  const auto& entry = context.checkpoint.file(images::REG, id, referrer);
  return context.internal(open_checked(context, entry.reg(), flags | O_CLOEXEC));
}

const Kind regular_kind = {
    .type = images::REG,
    .name = "regular file",
    .owner = [](images::file_entry& entry) { return entry.mutable_reg()->mutable_fown(); },
    .make = make,
};

}  // namespace criu::files
