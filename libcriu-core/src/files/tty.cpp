// SPDX-License-Identifier: LGPL-2.1-only
#include "files/tty.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include "files/common.hpp"
#include "files/saver.hpp"
#include "files/tty_device.hpp"
#include "files/tty_survey.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::Error;

namespace {

// The path to open the terminal by. One that has been hung up has none any more, but the name it had.
std::string path_of(const Description& description, bool hung_up) {
  constexpr std::string_view deleted = " (deleted)";
  auto path = description.link;
  struct stat found {};
  if (::stat(path.c_str(), &found) == 0 && found.st_dev == description.stat.st_dev &&
      found.st_ino == description.stat.st_ino) {
    return path;
  }
  if (hung_up) {
    return path.ends_with(deleted) ? path.substr(0, path.size() - deleted.size()) : path;
  }
  throw Error("cannot dump", description.what() + ": its path leads elsewhere", 0,
              "it belongs to a devpts or /dev that is hidden, or not mounted here");
}

void save_path(Saver& saver, const Description& description, bool hung_up, images::tty_file_entry& tty) {
  images::file_entry entry;
  entry.set_type(images::REG);
  entry.set_id(saver.new_file_id());
  auto& path = *entry.mutable_reg();
  path.set_id(entry.id());
  path.set_flags(tty.flags());
  path.set_pos(static_cast<std::uint64_t>(description.info.pos));
  auto& owner = *path.mutable_fown();
  owner.set_uid(0);
  owner.set_euid(0);
  owner.set_signum(0);
  owner.set_pid_type(0);
  owner.set_pid(0);
  path.set_name(path_of(description, hung_up));
  path.set_mode(description.stat.st_mode);
  saver.put(entry);
  tty.set_regf_id(entry.id());
}

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  const auto& terminal = saver.terminals().meet(saver, description);
  auto& tty = *entry.mutable_tty();
  tty.set_id(entry.id());
  tty.set_tty_info_id(terminal.info.id());
  tty.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  if (terminal.info.type() != images::EXT_TTY) {
    save_path(saver, description, !terminal.info.has_termios(), tty);
  }
}

// Both ends of a pty are made together.
std::uint64_t group(const Checkpoint& checkpoint, const images::file_entry& entry) {
  const auto id = entry.tty().tty_info_id();
  const auto found = checkpoint.terminals.find(id);
  if (found == checkpoint.terminals.end()) {
    throw Error("corrupt checkpoint",
                fmt::format("file {} refers to terminal {}, which tty-info.img does not have", entry.id(), id), 0);
  }
  return found->second.type() == images::PTY ? std::uint64_t{1} << 32 | id >> 1 : 0;
}

}  // namespace

const Kind tty_kind = {
    .type = images::TTY,
    .name = "terminal",
    .recognise =
        [](const Description& d) {
          return S_ISCHR(d.stat.st_mode) && (d.info.flags & O_PATH) == 0 && tty_class(d.stat.st_rdev) != TtyClass::none;
        },
    .save = save,
    .save_late = [](Saver& saver, const Description&,
                    images::file_entry& entry) { saver.terminals().complete(saver, entry.tty().tty_info_id()); },
    .owner = [](images::file_entry& entry) { return entry.mutable_tty()->mutable_fown(); },
    .group = group,
    .make =
        [](RestoreContext& context, std::span<const images::file_entry* const> group) {
          return context.objects.terminals.open(context, group);
        },
};

}  // namespace criu::files
