// SPDX-License-Identifier: LGPL-2.1-only
// pidfds: of tasks of the tree, zombies included, and of processes that are gone. Those of one gone process stay known
// as such: on pidfs (Linux 6.9) they are the same inode, and since 6.15 they tell how it ended.
#include "files/pidfd.hpp"

#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "files/common.hpp"
#include "files/saver.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// Names one thread (Linux 6.9). glibc 2.36 has no name for it.
constexpr unsigned of_thread = O_EXCL;

// struct pidfd_info as of Linux 6.13.
struct Info {
  std::uint64_t mask;
  std::uint64_t cgroup;
  std::uint32_t ids[11];
  std::int32_t exit_code;
};
static_assert(sizeof(Info) == 64);
constexpr std::uint64_t info_exit = 8;
constexpr unsigned long get_info = _IOWR(0xff, 11, Info);

// The target's id in its own namespace is the last of several.
pid_t last_number(std::string_view words) {
  const auto at = words.find_last_of(" \t");
  return static_cast<pid_t>(std::atoi(std::string(words.substr(at == std::string_view::npos ? 0 : at + 1)).c_str()));
}

void save_end(const Description& description, images::pidfd_entry& pidfd) {
  Info info{};
  info.mask = info_exit;
  if (::ioctl(description.own, get_info, &info) == 0 && (info.mask & info_exit) != 0) {
    pidfd.set_exit_status(static_cast<std::uint32_t>(info.exit_code));
  }
}

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  const auto& text = description.info.text;
  auto& pidfd = *entry.mutable_pidfd();
  pidfd.set_id(entry.id());
  pidfd.set_ino(static_cast<std::uint32_t>(description.stat.st_ino));
  pidfd.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC | O_RDWR));
  const auto target = last_number(kernel::field(text, "Pid").value_or("0"));
  pidfd.set_nspid(target < 0 ? -1 : last_number(kernel::field(text, "NSpid").value_or("0")));
  if (target == 0) {
    throw Error("cannot dump", description.what() + ": its process is in a pid namespace that is not seen here", 0);
  }
  if (target < 0 && !saver.dump().look_only) {
    save_end(description, pidfd);
  }
}

// Which tasks are in the tree is known when all have been seen.
void save_late(Saver& saver, const Description& description, images::file_entry& entry) {
  const auto target = entry.pidfd().nspid();
  if (target < 0 || saver.dump().tasks.contains(target)) {
    return;
  }
  if ((entry.pidfd().flags() & of_thread) != 0) {
    throw Error(
        "cannot dump",
        fmt::format("{} is of thread {}, which is not the first of a process of the tree", description.what(), target),
        0);
  }
  throw Error("cannot dump", fmt::format("{} is of process {}, which is not in the tree", description.what(), target),
              0);
}

std::uint64_t group(const Checkpoint&, const images::file_entry& entry) {
  constexpr std::uint64_t gone = std::uint64_t{1} << 32;
  return entry.pidfd().nspid() < 0 ? gone | entry.pidfd().ino() : 0;
}

base::Fd open_pidfd(pid_t pid, const images::pidfd_entry& entry, const std::string& what) {
  return base::Fd(
      static_cast<int>(check(::syscall(SYS_pidfd_open, pid, entry.flags() & (O_NONBLOCK | of_thread)), "open", what)));
}

// Ends as the process that is gone did. Nothing but system calls: it shares what its parent had in memory.
[[noreturn]] void end_like(std::uint32_t status) {
  const int signo = static_cast<int>(status & 0x7f);
  if (signo != 0) {
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::signal(signo, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::syscall(SYS_kill, ::syscall(SYS_getpid), signo);
  }
  ::_exit(static_cast<int>(status >> 8 & 0xff));
}

// A process that is gone as soon as it is held by pidfds. Nobody is signalled of its end.
std::vector<base::Fd> make_gone(std::span<const images::file_entry* const> group) {
  const auto& first = group.front()->pidfd();
  const auto what = fmt::format("a pidfd of a process that is gone (file {})", first.id());
  const auto child = static_cast<pid_t>(check(::syscall(SYS_clone, 0, 0, 0, 0, 0), "make a process for", what));
  if (child == 0) {
    end_like(first.has_exit_status() ? first.exit_status() : SIGKILL);
  }
  std::vector<base::Fd> fds;
  for (const auto* entry : group) {
    fds.push_back(open_pidfd(child, entry->pidfd(), what));
  }
  while (::waitpid(child, nullptr, __WALL) < 0 && errno == EINTR) {
  }
  return fds;
}

std::vector<base::Fd> make(RestoreContext&, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->pidfd();
  if (entry.nspid() < 0) {
    return make_gone(group);
  }
  return one(open_pidfd(entry.nspid(), entry, fmt::format("pidfd of process {} (file {})", entry.nspid(), entry.id())));
}

}  // namespace

const Kind pidfd_kind = {
    .type = images::PIDFD,
    .name = "pidfd",
    .recognise =
        [](const Description& description) {
          return description.link == "anon_inode:[pidfd]" || description.link.starts_with("pidfd:");
        },
    .save = save,
    .save_late = save_late,
    .owner = [](images::file_entry& entry) { return entry.mutable_pidfd()->mutable_fown(); },
    .group = group,
    .make = make,
};

}  // namespace criu::files
