// SPDX-License-Identifier: LGPL-2.1-only
#include "files/terminals.hpp"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>

// <signal.h> has a macro by the name of a field of the images.
#undef sigmask

#include "action_scripts.hpp"
#include "files/common.hpp"
#include "files/pty_numbers.hpp"
#include "files/regular.hpp"
#include "files/tty_device.hpp"
#include "log.hpp"
#include "namespaces/user.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// Of all that is opened by a path, whatever O_LARGEFILE may be; TIOCGPTPEER leaves it out.
constexpr std::uint32_t large_file = 0100000;

bool is_master(const images::tty_info_entry& info) {
  return info.type() == images::PTY && tty_class(info.rdev()) == TtyClass::master;
}

std::string name_of(const images::tty_info_entry& info) {
  switch (info.type()) {
    case images::PTY:
      return fmt::format("terminal {} (pty {})", info.id(), info.pty().index());
    case images::CTTY:
      return fmt::format("terminal {} (/dev/tty)", info.id());
    case images::EXT_TTY:
      return "terminal " + tty_key(info.rdev(), info.dev());
    default:
      return fmt::format("terminal {} (device {}:{})", info.id(), gnu_dev_major(info.rdev()),
                         gnu_dev_minor(info.rdev()));
  }
}

const TaskImage* leader_of(const Checkpoint& checkpoint, std::uint32_t session) {
  for (const auto& task : checkpoint.tasks) {
    if (task->entry.pid() == session) {
      return task->alive() && task->entry.sid() == session ? task.get() : nullptr;
    }
  }
  return nullptr;
}

// Changes of a terminal by who is not in its foreground are not to stop us.
class InBackground {
 public:
  InBackground() {
    sigset_t stop;
    ::sigemptyset(&stop);
    ::sigaddset(&stop, SIGTTOU);
    ::pthread_sigmask(SIG_BLOCK, &stop, &before_);
  }
  ~InBackground() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  InBackground(const InBackground&) = delete;
  InBackground& operator=(const InBackground&) = delete;

 private:
  sigset_t before_;
};

void control(int terminal, bool steal, const std::string& what) {
  if (::ioctl(terminal, TIOCSCTTY, steal ? 1 : 0) == 0) {
    return;
  }
  if (errno == EPERM) {
    throw Error("cannot restore", what + " controls another session already", EPERM,
                "give the restore a terminal of its own, as script(1) makes one");
  }
  check(-1, "make the controlling terminal of a session:", what);
}

}  // namespace

std::vector<std::pair<const TaskImage*, pid_t>> foreground_groups(const Checkpoint& checkpoint) {
  std::vector<std::pair<const TaskImage*, pid_t>> groups;
  if (checkpoint.terminals.empty()) {
    return groups;
  }
  std::map<std::uint32_t, const TaskImage*> leaders;
  for (const auto& task : checkpoint.tasks) {
    if (task->alive() && task->entry.sid() == task->entry.pid()) {
      leaders.emplace(task->entry.pid(), task.get());
    }
  }
  for (const auto& [id, info] : checkpoint.terminals) {
    const auto leader = leaders.find(info.sid());
    if (info.pgrp() != 0 && leader != leaders.end()) {
      groups.emplace_back(leader->second, static_cast<pid_t>(info.pgrp()));
    }
  }
  return groups;
}

// ---- in the master, before the tasks --------------------------------------------------------------------------------

Terminals::Terminals(const RestoreContext& context) {
  if (context.checkpoint.terminals.empty()) {
    return;
  }
  sort(context);
  for (const auto& [id, info] : context.checkpoint.terminals) {
    if (info.type() == images::PTY && !is_master(info) && !info.has_termios()) {
      make_hung_up(context, info);
    }
  }
  make_ptys(context);
  for (const auto& [id, info] : context.checkpoint.terminals) {
    const bool alone =
        info.type() == images::PTY ? info.has_termios() && !ptys_.contains(id >> 1) : info.type() != images::CTTY;
    if (alone) {
      find_outside(context, info);
    }
  }
  for (const auto& [id, info] : context.checkpoint.terminals) {
    if (info.type() == images::CTTY) {
      open_current(context, info);
    }
  }
  note_controls(context);
}

void Terminals::sort(const RestoreContext& context) {
  for (const auto& [key, file] : context.checkpoint.files) {
    if (key.first == images::TTY) {
      files_[file.tty().tty_info_id()].push_back(&file);
    }
  }
  for (const auto& [id, info] : context.checkpoint.terminals) {
    if (is_master(info)) {
      auto& pty = ptys_[id >> 1];
      pty.master = &info;
      pty.what = name_of(info);
    }
  }
  for (const auto& [id, info] : context.checkpoint.terminals) {
    const auto pty = ptys_.find(id >> 1);
    if (info.type() == images::PTY && !is_master(info) && info.has_termios() && pty != ptys_.end()) {
      pty->second.slave = &info;
    } else {
      note_orphan(context, info);
    }
  }
  auto reader = context.images.open(image::type::tty_data);
  images::tty_data_entry entry;
  while (reader && reader->next(entry)) {
    data_[entry.tty_id()] = entry;
  }
}

// Whose master was outside of the tree: the client of the RPC may want a new one.
void Terminals::note_orphan(const RestoreContext& context, const Info& info) {
  if (info.type() == images::PTY && !is_master(info) && info.has_termios() && context.options.orphan_terminals &&
      context.options.listener != nullptr) {
    auto& pty = ptys_[info.id() >> 1];
    pty.slave = &info;
    pty.what = name_of(info);
  }
}

const std::vector<const images::file_entry*>& Terminals::files_of(std::uint32_t id) const {
  static const std::vector<const images::file_entry*> none;
  const auto found = files_.find(id);
  return found == files_.end() ? none : found->second;
}

namespace {

const images::reg_file_entry& path_entry(const RestoreContext& context, const images::tty_file_entry& tty) {
  return context.checkpoint
      .file(images::REG, tty.has_regf_id() ? tty.regf_id() : tty.id(), fmt::format("terminal (file {})", tty.id()))
      .reg();
}

}  // namespace

std::string Terminals::path_of(const RestoreContext& context, std::uint32_t id) const {
  const auto& files = files_of(id);
  return files.empty() ? std::string() : path_entry(context, files.front()->tty()).name();
}

namespace {

// O_CLOEXEC would stay among the flags of the description for good.
base::Fd open_peer(int master, std::uint32_t flags, const std::string& what) {
  return base::Fd(check(::ioctl(master, TIOCGPTPEER, static_cast<int>(flags) | O_NOCTTY), "open", what));
}

}  // namespace

base::Fd Terminals::open_slave(const RestoreContext& context, int master, const images::file_entry& file) const {
  const auto& tty = file.tty();
  const auto what = fmt::format("the slave of a pty (file {})", tty.id());
  if ((tty.flags() & large_file) != 0) {
    return open_path(context, tty.has_regf_id() ? tty.regf_id() : tty.id(), static_cast<int>(tty.flags()), what);
  }
  return open_peer(master, tty.flags(), what);
}

// A slave outlives its master as a descriptor that is good for nothing, under the name it had.
void Terminals::make_hung_up(const RestoreContext& context, const Info& info) {
  const auto what = name_of(info);
  const auto path = path_of(context, info.id());
  PtyNumbers numbers(context);
  numbers.want(info.pty().index(), ptmx_beside(path), what);
  const auto made = numbers.make(PtyNumbers::Taken::another);
  const auto& master = made.front();
  const int off = 0;
  check(::ioctl(master.get(), TIOCSPTLCK, &off), "unlock", what);
  for (const auto* file : files_of(info.id())) {
    const auto flags = file->tty().flags();
    if ((flags & large_file) != 0) {
      const base::Fd peer(check(::ioctl(master.get(), TIOCGPTPEER, O_PATH | O_CLOEXEC), "open", what));
      prepared_[file->id()] = context.internal(reopen(peer.get(), static_cast<int>(flags), what));
    } else {
      prepared_[file->id()] = context.internal(open_peer(master.get(), flags, what));
    }
  }
}

void Terminals::make_ptys(const RestoreContext& context) {
  PtyNumbers numbers(context);
  for (const auto& [number, pty] : ptys_) {
    const auto path =
        pty.master != nullptr ? path_of(context, pty.master->id()) : ptmx_beside(path_of(context, pty.slave->id()));
    numbers.want(pty.any().pty().index(), path.empty() ? "/dev/ptmx" : path, pty.what);
  }
  auto made = numbers.make(PtyNumbers::Taken::fails);
  auto next = made.begin();
  for (auto& [number, pty] : ptys_) {
    pty.fd = std::move(*next++);
    apply(context, pty);
  }
  give_away(context);
}

// A client that does not want the master leaves the terminal to --shell-job.
void Terminals::give_away(const RestoreContext& context) {
  std::erase_if(ptys_, [&](const auto& entry) {
    const Pty& pty = entry.second;
    return pty.master == nullptr && !context.options.listener->take_terminal(pty.fd.get());
  });
}

namespace {

void restore_node(const RestoreContext& context, int master, const images::tty_info_entry& info,
                  const std::vector<const images::file_entry*>& slaves, const std::string& what) {
  const base::Fd node(check(::ioctl(master, TIOCGPTPEER, O_PATH | O_CLOEXEC), "find the slave of", what));
  uid_t uid = info.uid();
  gid_t gid = info.gid();
  mode_t mode = 0;
  if (!slaves.empty()) {
    mode = path_entry(context, slaves.front()->tty()).mode() & 07777;
  } else if (info.extension().has_node()) {
    uid = info.extension().node().uid();
    gid = info.extension().node().gid();
    mode = info.extension().node().mode() & 07777;
  } else {
    return;
  }
  uid = context.users->user_outside(uid);
  gid = context.users->group_outside(gid);
  struct stat now {};
  check(::fstat(node.get(), &now), "stat the slave of", what);
  if (now.st_uid != uid || now.st_gid != gid) {
    check(::fchownat(node.get(), "", uid, gid, AT_EMPTY_PATH), "set the owner of", what);
  }
  if (mode != 0 && (now.st_mode & 07777) != mode) {
    check(::chmod(fmt::format("/proc/self/fd/{}", node.get()).c_str(), mode), "set the mode of", what);
  }
}

}  // namespace

void Terminals::apply(const RestoreContext& context, Pty& pty) {
  const int master = pty.fd.get();
  const int off = 0;
  check(::ioctl(master, TIOCSPTLCK, &off), "unlock", pty.what);
  const auto& slaves = pty.slave != nullptr ? files_of(pty.slave->id()) : files_of(~0U);
  restore_node(context, master, pty.slave != nullptr ? *pty.slave : *pty.master, slaves, pty.what);
  const auto& settings = pty.slave != nullptr ? *pty.slave : *pty.master;
  restore_tty_settings(master, settings, pty.what);
  restore_tty_size(master, settings, pty.what);
  if (pty.master != nullptr) {
    fill(context, pty);
  }
  restore_tty_locks(master, settings, pty.what);
  if (pty.master != nullptr && pty.master->exclusive()) {
    check(::ioctl(master, TIOCEXCL), "make exclusive", pty.what);
  }
}

// What waits unread. The slave is opened only if it has been before: whether it ever was is seen from the master.
void Terminals::fill(const RestoreContext&, Pty& pty) {
  const auto& info = *pty.master;
  PtyContents contents;
  contents.packet_status = info.extension().packet_status();
  contents.stopped = (pty.slave != nullptr ? *pty.slave : info).extension().stopped();
  if (const auto output = data_.find(info.id()); output != data_.end()) {
    contents.output = output->second.data();
  }
  if (const auto input = data_.find(info.id() ^ 1U); input != data_.end()) {
    contents.input.bytes = input->second.data();
    contents.input.lines.assign(input->second.lines().begin(), input->second.lines().end());
    if (contents.input.lines.empty() && info.has_termios()) {
      contents.input.lines = lines_of(contents.input.bytes, info.termios());
    }
  }
  base::Fd slave;
  if (pty.slave != nullptr || info.extension().slave_closed() || data_.contains(info.id() ^ 1U)) {
    slave = base::Fd(check(::ioctl(pty.fd.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC),
                           "open the slave of", pty.what));
  }
  files::fill({pty.fd.get(), slave.get(), pty.what}, contents, info.packet_mode());
}

// The terminal of whoever restores: for a tree that had its own from outside.
namespace {

base::Fd terminal_of_caller(const RestoreContext& context) {
  if (::isatty(STDIN_FILENO) != 0) {
    return context.internal(base::Fd(check(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0), "copy the standard input")));
  }
  base::Fd fd(::open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!fd) {
    throw Error("cannot restore", "the standard input is no terminal", 0,
                "--shell-job puts the caller's terminal in the place of the one that the tree had");
  }
  return context.internal(std::move(fd));
}

}  // namespace

void Terminals::find_outside(const RestoreContext& context, const Info& info) {
  const auto what = name_of(info);
  const auto key = tty_key(info.rdev(), info.dev());
  if (info.type() == images::CONSOLE || info.type() == images::VT || info.type() == images::SERIAL) {
    const auto path = path_of(context, info.id());
    outside_[info.id()] = context.internal(
        base::Fd(check(::open(path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), "open", path)));
    return;
  }
  if (const int given = context.objects.inherited.find(key); given >= 0) {
    if (::isatty(given) == 0) {
      throw Error("cannot restore", what, 0, "what --inherit-fd gives for it is no terminal");
    }
    outside_[info.id()] = context.internal(copy_inherited(given, what));
    return;
  }
  if (info.type() == images::EXT_TTY) {
    throw Error("cannot restore", what + " is from outside of the tree, and missing", 0,
                fmt::format("--inherit-fd fd[N]:{} gives one", key));
  }
  if (!context.options.shell_job) {
    throw Error("cannot restore", what + ": its master was outside of the tree", 0,
                fmt::format("--shell-job puts the caller's terminal in its place, --inherit-fd fd[N]:{} another", key));
  }
  if (!of_caller_) {
    of_caller_ = terminal_of_caller(context);
  }
  outside_[info.id()] =
      context.internal(base::Fd(check(::fcntl(of_caller_.get(), F_DUPFD_CLOEXEC, 0), "copy the caller's terminal")));
}

int Terminals::reach(std::uint32_t id) const {
  if (const auto outside = outside_.find(id); outside != outside_.end()) {
    return outside->second.get();
  }
  const auto pty = ptys_.find(id >> 1);
  return pty == ptys_.end() ? -1 : pty->second.fd.get();
}

namespace {

// Opens /dev/tty for each place, as a session of its own that has this terminal for as long.
void open_as_current(int terminal, bool steal, const std::vector<std::pair<int, int>>& places_and_flags,
                     const std::string& what) {
  // It shares the table of descriptors, and we wait until it has ended.
  const auto pid =
      check(::syscall(SYS_clone, CLONE_FILES | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0), "make a helper for", what);
  if (pid == 0) {
    bool good = ::setsid() >= 0 && ::ioctl(terminal, TIOCSCTTY, steal ? 1 : 0) == 0;
    for (const auto& [place, flags] : places_and_flags) {
      const int fd = good ? ::open("/dev/tty", flags | O_CLOEXEC) : -1;
      good = fd >= 0 && ::dup3(fd, place, O_CLOEXEC) >= 0 && ::close(fd) == 0;
    }
    ::_exit(good ? 0 : errno);
  }
  int status = 0;
  check(::waitpid(static_cast<pid_t>(pid), &status, 0), "wait for the helper of", what);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw Error("open /dev/tty of", what, WIFEXITED(status) ? WEXITSTATUS(status) : 0,
                WIFEXITED(status) && WEXITSTATUS(status) == EPERM ? "it controls another session already" : "");
  }
}

}  // namespace

void Terminals::open_current(const RestoreContext& context, const Info& info) {
  const auto what = name_of(info);
  std::uint32_t id = info.extension().terminal();
  if (!info.extension().has_terminal()) {
    // CRIU says no more than whose controlling terminal it is.
    id = ~0U;
    for (const auto& [other_id, other] : context.checkpoint.terminals) {
      if (other.type() != images::CTTY && info.sid() != 0 && other.sid() == info.sid() && reach(other_id) >= 0) {
        id = other_id;
      }
    }
  }
  int terminal = reach(id);
  const bool hung_up = !info.has_termios();
  base::Fd passing;
  if (hung_up) {
    passing = base::Fd(check(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), "make a passing pty for", what));
    const int off = 0;
    check(::ioctl(passing.get(), TIOCSPTLCK, &off), "unlock a passing pty for", what);
    terminal = passing.get();
  } else if (terminal < 0 && !context.options.shell_job) {
    throw Error("cannot restore", what + ": the terminal that it was is not of this tree", 0,
                "--shell-job puts the caller's in its place");
  }
  const bool of_caller = terminal < 0 || (info.sid() != 0 && info.sid() == context.checkpoint.outer_session);
  std::vector<std::pair<int, int>> places;
  for (const auto* file : files_of(info.id())) {
    const int flags = static_cast<int>(file->tty().flags());
    auto& place = prepared_[file->id()];
    if (of_caller && !hung_up) {
      place = context.internal(
          base::Fd(check(::open("/dev/tty", flags | O_CLOEXEC), "open the caller's", "controlling terminal")));
    } else {
      place = base::Fd(check(::fcntl(terminal, F_DUPFD_CLOEXEC, context.first_internal_fd), "make room for", what));
      places.emplace_back(place.get(), flags);
    }
  }
  if (!places.empty()) {
    open_as_current(terminal, of_caller_ && terminal == reach(id) && outside_.contains(id), places, what);
  }
}

// Which leader gets which terminal.
void Terminals::note_controls(const RestoreContext& context) {
  for (const auto& [id, info] : context.checkpoint.terminals) {
    if (info.sid() == 0 || info.type() == images::CTTY || reach(id) < 0 ||
        leader_of(context.checkpoint, info.sid()) == nullptr) {
      continue;
    }
    // The caller's may be taken from the session that the caller is in, and from no other.
    bool steal = false;
    if (of_caller_ && outside_.contains(id) && info.type() == images::PTY) {
      pid_t session = 0;
      steal = ::ioctl(of_caller_.get(), TIOCGSID, &session) == 0 && session == ::getsid(0);
    }
    controls_.try_emplace(static_cast<pid_t>(info.sid()),
                          Control{reach(id), steal, static_cast<pid_t>(info.pgrp()), name_of(info)});
  }
}

// ---- in the tasks ---------------------------------------------------------------------------------------------------

std::vector<base::Fd> Terminals::open(const RestoreContext& context,
                                      std::span<const images::file_entry* const> group) const {
  std::vector<base::Fd> made;
  const auto id = group.front()->tty().tty_info_id();
  const auto pty = ptys_.find(id >> 1);
  for (const auto* file : group) {
    const auto& tty = file->tty();
    const auto& info = context.checkpoint.terminals.at(tty.tty_info_id());
    const auto what = fmt::format("{} (file {})", name_of(info), file->id());
    if (const auto ready = prepared_.find(file->id()); ready != prepared_.end()) {
      made.push_back(base::Fd(check(::fcntl(ready->second.get(), F_DUPFD_CLOEXEC, 0), "copy", what)));
    } else if (const auto outside = outside_.find(info.id()); outside != outside_.end()) {
      made.push_back(reopen(outside->second.get(), static_cast<int>(tty.flags()), what));
    } else if (pty != ptys_.end() && is_master(info)) {
      made.push_back(base::Fd(check(::fcntl(pty->second.fd.get(), F_DUPFD_CLOEXEC, 0), "copy", what)));
      set_flags(made.back().get(), tty.flags(), what);
    } else if (pty != ptys_.end()) {
      made.push_back(open_slave(context, pty->second.fd.get(), *file));
    } else {
      throw Error("corrupt checkpoint", what + " was not made", 0);
    }
    if (info.exclusive() && !is_master(info)) {
      check(::ioctl(made.back().get(), TIOCEXCL), "make exclusive", what);
    }
  }
  if (pty != ptys_.end() && pty->second.master != nullptr && pty->second.master->locked()) {
    const int on = 1;
    check(::ioctl(pty->second.fd.get(), TIOCSPTLCK, &on), "lock", pty->second.what);
  }
  return made;
}

void Terminals::take_control(const TaskImage& leader) const {
  if (const auto found = controls_.find(leader.pid()); found != controls_.end()) {
    control(found->second.fd, found->second.steal, found->second.what);
  }
}

void Terminals::set_foreground(const TaskImage& leader) const {
  const auto found = controls_.find(leader.pid());
  if (found == controls_.end() || found->second.foreground == 0) {
    return;
  }
  check(::ioctl(found->second.fd, TIOCSPGRP, &found->second.foreground), "set the foreground process group of",
        found->second.what);
}

// ---- in the master, at the end --------------------------------------------------------------------------------------

void Terminals::hand_over(const RestoreContext& context) {
  const InBackground us;
  std::set<std::uint32_t> groups;
  if (!outside_.empty()) {
    for (const auto& task : context.checkpoint.tasks) {
      groups.insert(task->entry.pgid());
    }
  }
  for (const auto& [id, fd] : outside_) {
    const auto& info = context.checkpoint.terminals.at(id);
    const auto what = name_of(info);
    restore_tty_settings(fd.get(), info, what);
    // A job that had the terminal gets it, unless we have not got it ourselves.
    const bool job = info.sid() != 0 && info.sid() == context.checkpoint.outer_session && groups.contains(info.pgrp());
    pid_t foreground = 0;
    if (job && ::ioctl(fd.get(), TIOCGPGRP, &foreground) == 0 && foreground == ::getpgrp()) {
      foreground = static_cast<pid_t>(info.pgrp());
      check(::ioctl(fd.get(), TIOCSPGRP, &foreground), "set the foreground process group of", what);
    }
    // As when a window changes its size.
    if (!has_size(fd.get(), info) && groups.contains(info.pgrp())) {
      ::kill(-static_cast<pid_t>(info.pgrp()), SIGWINCH);
    }
  }
  // Whoever keeps a terminal open keeps its programs from noticing that its other end is closed.
  outside_.clear();
  ptys_.clear();
  prepared_.clear();
  controls_.clear();
  of_caller_.reset();
}

}  // namespace criu::files
