// SPDX-License-Identifier: LGPL-2.1-only
#include "files/tty_survey.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>

#include "dump_context.hpp"
#include "files/external.hpp"
#include "files/saver.hpp"
#include "files/tty_queue.hpp"
#include "log.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// The numbers of terminals in the images, each twice that and one more for a master. What they have no room for (a
// second devpts, a second console) comes above all of them.
constexpr std::uint32_t highest_pty = 1000, console_number = 1002, vt_number = 1004, current_number = 1006,
                        first_external = 1013, last_external = 1076, first_extra = 1 << 16;

// A descriptor of the slave that opens nothing; its settings and whether it was ever open stay as they are.
base::Fd node_of_slave(int master, const std::string& what) {
  base::Fd fd(::ioctl(master, TIOCGPTPEER, O_PATH | O_CLOEXEC));
  if (!fd) {
    throw Error("cannot dump", what, errno,
                "it belongs to a devpts that is not mounted here: run the dump in the mount namespace of its task");
  }
  return fd;
}

base::Fd open_slave(int master, const std::string& what) {
  int locked = 0;
  check(::ioctl(master, TIOCGPTLCK, &locked), "ask for the lock of", what);
  const int off = 0;
  if (locked != 0) {
    check(::ioctl(master, TIOCSPTLCK, &off), "unlock", what);
  }
  base::Fd slave(::ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  const int error = errno;
  if (locked != 0) {
    ::ioctl(master, TIOCSPTLCK, &locked);
  }
  errno = error;
  check(slave.get(), "open the slave of", what);
  return slave;
}

bool hangs_up(int fd) {
  pollfd poll{fd, 0, 0};
  return ::poll(&poll, 1, 0) > 0 && (poll.revents & POLLHUP) != 0;
}

std::uint32_t device_behind(int fd) {
  unsigned number = 0;
  return ::ioctl(fd, TIOCGDEV, &number) < 0 ? 0 : number;
}

void refuse_busy_console(const Description& description) {
  constexpr unsigned long get_mode = 0x4b3b, get_keyboard = 0x4b44,
                          get_switching = 0x5601;  // KDGETMODE, KDGKBMODE, VT_GETMODE
  constexpr int text = 0, translated = 1, unicode = 3;
  struct {
    char mode, waitv;
    short relsig, acqsig, frsig;
  } switching{};
  int mode = text, keyboard = unicode;
  ::ioctl(description.own, get_mode, &mode);
  ::ioctl(description.own, get_keyboard, &keyboard);
  ::ioctl(description.own, get_switching, &switching);
  if (mode != text || (keyboard != translated && keyboard != unicode) || switching.mode != 0) {
    throw Error(
        "not supported by this version",
        description.what() + " is a virtual console in graphics mode, or with its keyboard or switching taken over", 0);
  }
}

}  // namespace

TtySurvey::Met* TtySurvey::find(std::uint32_t id) {
  const auto found = met_.find(id);
  return found == met_.end() ? nullptr : &found->second;
}

std::uint32_t TtySurvey::new_id(const Key& key, Usual usual) {
  const auto known = ids_.find(key);
  if (known != ids_.end()) {
    return known->second;
  }
  const auto id = usual && taken_.insert(*usual).second ? *usual : (first_extra + last_extra_++) << 1;
  ids_.emplace(key, id);
  return id;
}

void TtySurvey::look_at_master(const Description& description, Met& met, Key& key, Usual& usual) {
  const auto what = description.what();
  auto& info = met.info;
  if ((description.info.flags & O_ACCMODE) != O_RDWR) {
    throw Error("not supported by this version", what + " is a pty's master that was opened for one direction only", 0);
  }
  unsigned index = 0;
  check(::ioctl(met.fd.get(), TIOCGPTN, &index), "ask for the number of", what);
  const auto node = node_of_slave(met.fd.get(), what);
  check(::fstat(node.get(), &met.node), "stat the slave of", what);
  int locked = 0, packet_mode = 0;
  check(::ioctl(met.fd.get(), TIOCGPTLCK, &locked), "ask for the lock of", what);
  check(::ioctl(met.fd.get(), TIOCGPKT, &packet_mode), "ask for the packet mode of", what);
  pid_t session = 0, foreground = 0;
  if (::ioctl(met.fd.get(), TIOCGSID, &session) < 0 || ::ioctl(met.fd.get(), TIOCGPGRP, &foreground) < 0) {
    session = foreground = 0;
  }
  info.set_type(images::PTY);
  info.set_locked(locked != 0);
  info.set_packet_mode(packet_mode != 0);
  info.set_sid(static_cast<std::uint32_t>(session));
  info.set_pgrp(static_cast<std::uint32_t>(foreground));
  info.mutable_pty()->set_index(index);
  key = {images::PTY, met.node.st_dev, index, false};
  if (index <= highest_pty) {
    usual = index << 1;
  }
}

void TtySurvey::look_at_slave(const Description& description, Met& met, Key& key, Usual& usual) {
  const auto index = static_cast<std::uint32_t>(gnu_dev_minor(description.stat.st_rdev));
  met.info.set_type(images::PTY);
  met.info.mutable_pty()->set_index(index);
  key = {images::PTY, description.stat.st_dev, index, device_behind(description.own) == 0};
  if (index <= highest_pty) {
    usual = index << 1;
  }
}

TtySurvey::Met TtySurvey::look(Saver& saver, const Description& description, Key& key, Usual& usual) {
  const auto what = description.what();
  Met met{{}, tty_class(description.stat.st_rdev), what, {}, {}, false};
  auto& info = met.info;
  info.set_locked(false);
  info.set_packet_mode(false);
  info.set_sid(0);
  info.set_pgrp(0);
  info.set_rdev(tty_number(description.stat.st_rdev));
  info.set_dev(tty_number(description.stat.st_dev));
  info.set_uid(saver.dump().users->user(description.stat.st_uid));
  info.set_gid(saver.dump().users->group(description.stat.st_gid));
  met.fd = base::Fd(check(::fcntl(description.own, F_DUPFD_CLOEXEC, 0), "copy", what));
  if (met.kind != TtyClass::master && is_external(saver.dump().options, tty_key(info.rdev(), info.dev()))) {
    info.set_type(images::EXT_TTY);
    key = {images::EXT_TTY, description.stat.st_dev, info.rdev(), false};
    if (externals_ <= last_external - first_external) {
      usual = (first_external + externals_) << 1;
    }
    return met;
  }
  switch (met.kind) {
    case TtyClass::master:
      look_at_master(description, met, key, usual);
      return met;
    case TtyClass::slave:
      look_at_slave(description, met, key, usual);
      return met;
    case TtyClass::current:
      info.set_type(images::CTTY);
      key = {images::CTTY, 0, device_behind(description.own), false};
      usual = current_number << 1;
      return met;
    case TtyClass::console:
    case TtyClass::vt:
      refuse_busy_console(description);
      info.set_type(met.kind == TtyClass::vt ? images::VT : images::CONSOLE);
      key = {info.type(), 0, info.rdev(), false};
      usual = (met.kind == TtyClass::vt ? vt_number : console_number) << 1;
      return met;
    default:
      throw Error("not supported by this version",
                  fmt::format("{} is a serial line or the like, whose state is not known", what), 0,
                  fmt::format("--external {} puts another in its place", tty_key(info.rdev(), info.dev())));
  }
}

const TtySurvey::Met& TtySurvey::meet(Saver& saver, const Description& description) {
  Key key;
  Usual usual;
  auto met = look(saver, description, key, usual);
  const auto base = new_id(key, usual);
  const auto id = base | (met.kind == TtyClass::master ? 1 : 0);
  if (const auto* known = find(id)) {
    return *known;
  }
  met.info.set_id(id);
  externals_ += met.info.type() == images::EXT_TTY ? 1 : 0;
  if (met.kind == TtyClass::current) {
    opened_as_current_.insert(device_behind(met.fd.get()));
  }
  if (save_tty_state(met.fd.get(), met.info, met.what) && met.kind != TtyClass::current) {
    by_number_.emplace(met.kind == TtyClass::master    ? tty_number(met.node.st_rdev)
                       : met.kind == TtyClass::console ? device_behind(met.fd.get())
                                                       : met.info.rdev(),
                       id);
  }
  return met_.emplace(id, std::move(met)).first->second;
}

// Which session a terminal controls is known to its master, or else to the tasks of that session.
void TtySurvey::find_session(const DumpContext& dump, Met& met) const {
  const bool stands_for_another = met.kind == TtyClass::current || met.kind == TtyClass::console;
  const auto number = stands_for_another ? device_behind(met.fd.get()) : met.info.rdev();
  const auto found = dump.controlling.find(number);
  if (found != dump.controlling.end()) {
    met.info.set_sid(static_cast<std::uint32_t>(found->second));
    met.info.set_pgrp(static_cast<std::uint32_t>(std::max<pid_t>(0, dump.controls.at(found->second).foreground)));
  }
}

void TtySurvey::refuse_outside_user(const Met& master) {
  if (!looked_around_) {
    looked_around_ = true;
    std::error_code ignored;
    for (const auto& process : std::filesystem::directory_iterator("/proc", ignored)) {
      const auto name = process.path().filename().string();
      pid_t pid = 0;
      if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc{} || pid == ::getpid()) {
        continue;
      }
      for (const auto& fd : std::filesystem::directory_iterator(process.path() / "fd", ignored)) {
        struct stat found {};
        if (::stat(fd.path().c_str(), &found) == 0 && S_ISCHR(found.st_mode) &&
            tty_class(found.st_rdev) == TtyClass::slave) {
          in_use_[{found.st_dev, found.st_ino}] = {pid, std::atoi(fd.path().filename().c_str())};
        }
      }
    }
  }
  const auto user = in_use_.find({master.node.st_dev, master.node.st_ino});
  if (user != in_use_.end()) {
    throw Error("cannot dump", master.what, 0,
                fmt::format("its slave, /dev/pts/{}, is open outside of the tree: as fd {} of process {}",
                            master.info.pty().index(), user->second.second, user->second.first));
  }
}

void TtySurvey::save_contents(Saver& saver, Met& master, Met* slave) {
  base::Fd end;
  if (slave != nullptr || master.info.extension().slave_closed() ||
      opened_as_current_.contains(tty_number(master.node.st_rdev))) {
    end = open_slave(master.fd.get(), master.what);
  }
  const auto contents = look_into({master.fd.get(), end.get(), master.what}, master.info.packet_mode());
  const auto put = [&](std::uint32_t id, const std::string& bytes, const std::vector<std::uint32_t>& lines) {
    images::tty_data_entry data;
    data.set_tty_id(id);
    data.set_data(bytes);
    data.mutable_lines()->Add(lines.begin(), lines.end());
    saver.image(image::type::tty_data).write(data);
  };
  const auto& input = contents.input;
  if (!input.bytes.empty() || !input.lines.empty()) {
    const bool usual = input.lines == lines_of(input.bytes, master.info.termios());
    put(master.info.id() & ~1U, input.bytes, usual ? std::vector<std::uint32_t>{} : input.lines);
  }
  if (!contents.output.empty()) {
    put(master.info.id(), contents.output, {});
  }
  if (contents.packet_status != 0) {
    master.info.mutable_extension()->set_packet_status(contents.packet_status);
  }
  if (contents.stopped != 0) {
    (slave != nullptr ? slave : &master)->info.mutable_extension()->set_stopped(contents.stopped);
  }
}

void TtySurvey::complete_master(Saver& saver, Met& met) {
  auto* slave = find(met.info.id() ^ 1U);
  if (slave == nullptr) {
    if (hangs_up(met.fd.get())) {
      met.info.mutable_extension()->set_slave_closed(true);
    } else {
      refuse_outside_user(met);
    }
    auto& node = *met.info.mutable_extension()->mutable_node();
    node.set_uid(saver.dump().users->user(met.node.st_uid));
    node.set_gid(saver.dump().users->group(met.node.st_gid));
    node.set_mode(met.node.st_mode);
  }
  if (!saver.dump().look_only) {
    save_contents(saver, met, slave);
  }
}

void TtySurvey::complete_slave(Saver& saver, Met& met) {
  if (auto* master = find(met.info.id() ^ 1U); master != nullptr && met.info.type() == images::PTY) {
    complete(saver, met.info.id() ^ 1U);
    met.info.set_sid(master->info.sid());
    met.info.set_pgrp(master->info.pgrp());
    return;
  }
  if (!met.info.has_termios()) {
    return;  // hung up: its master is nowhere
  }
  find_session(saver.dump(), met);
  int waiting = 0;
  if (::ioctl(met.fd.get(), FIONREAD, &waiting) == 0 && waiting > 0) {
    LOG_WARN("{}: what was typed and not read yet is lost, since the terminal's master is outside", met.what);
  }
  if (met.info.type() == images::PTY && !saver.dump().options.shell_job && !saver.dump().options.orphan_terminals) {
    throw Error("cannot dump", met.what + ": the terminal's master is outside of the tree", 0,
                fmt::format("--shell-job puts the terminal of the restore in its place, --external {} one that the "
                            "restore is given with --inherit-fd",
                            tty_key(met.info.rdev(), met.info.dev())));
  }
}

// Which terminal a descriptor of /dev/tty is.
void TtySurvey::complete_current(Saver& saver, Met& met) {
  const auto number = device_behind(met.fd.get());
  if (number == 0) {
    return;  // hung up
  }
  const Met* terminal = nullptr;
  const auto [begin, end] = by_number_.equal_range(number);
  for (auto at = begin; at != end; ++at) {
    const auto& other = met_.at(at->second);
    if (terminal != nullptr && other.info.id() >> 1 != terminal->info.id() >> 1) {
      throw Error("not supported by this version",
                  met.what + ": several terminals of the tree have the number of the one it is", 0);
    }
    terminal = &other;
  }
  find_session(saver.dump(), met);
  if (terminal == nullptr && !saver.dump().options.shell_job) {
    throw Error("cannot dump", met.what + ": the terminal that it is is outside of the tree", 0,
                "--shell-job puts the terminal of the restore in its place");
  }
  if (terminal != nullptr) {
    met.info.mutable_extension()->set_terminal(terminal->info.id() & ~1U);
  }
}

void TtySurvey::complete(Saver& saver, std::uint32_t id) {
  auto& met = met_.at(id);
  if (std::exchange(met.complete, true)) {
    return;
  }
  switch (met.kind) {
    case TtyClass::master:
      complete_master(saver, met);
      break;
    case TtyClass::current:
      complete_current(saver, met);
      break;
    default:
      complete_slave(saver, met);
  }
  saver.image(image::type::tty_info).write(met.info);
}

void TtySurvey::check_sessions(Saver& saver) const {
  std::set<std::uint32_t> sessions;
  for (const auto& [id, met] : met_) {
    sessions.insert(met.info.sid());
  }
  for (const auto& [session, control] : saver.dump().controls) {
    if (!control.led_from_inside || sessions.contains(static_cast<std::uint32_t>(session))) {
      continue;
    }
    const auto object = fmt::format("session {} has the controlling terminal {}:{}, which is outside of the tree",
                                    session, gnu_dev_major(control.terminal), gnu_dev_minor(control.terminal));
    if (!saver.dump().options.shell_job) {
      throw Error("cannot dump", object, 0, "with --shell-job it goes on without one");
    }
    LOG_WARN("{}, and not open in it: it goes on without one", object);
  }
}

}  // namespace criu::files
