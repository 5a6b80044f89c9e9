// SPDX-License-Identifier: LGPL-2.1-only
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/kernel.hpp"
#include "kernel/probes.hpp"
#include "log.hpp"

namespace criu::kernel::probe {

namespace {

bool shows(const base::Fd& fd, const char* word, const char* what) {
  if (!fd) {
    return lacks(what);
  }
  if (fdinfo(fd.get()).find(word) != std::string::npos) {
    return true;
  }
  LOG_WARN("fdinfo of {} has no {}", what, word);
  return false;
}

// An epoll that watches a descriptor.
base::Fd watching(int fd) {
  base::Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event);
  return epoll;
}

constexpr int getowner_uids_command = 17;        // F_GETOWNER_UIDS, only in the kernel's own <fcntl.h>
constexpr unsigned long set_ticks = 0x40085400;  // TFD_IOC_SET_TICKS

}  // namespace

bool getowner_uids() {
  const base::Fd fd(::eventfd(0, EFD_CLOEXEC));
  unsigned uids[2];
  return ::fcntl(fd.get(), getowner_uids_command, uids) == 0 || lacks("F_GETOWNER_UIDS");
}

bool fdinfo_records() {
  const base::Fd event(::eventfd(0, EFD_CLOEXEC));
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGUSR1);
  const base::Fd signal(::signalfd(-1, &set, SFD_CLOEXEC));
  const base::Fd watch(::inotify_init1(IN_CLOEXEC));
  ::inotify_add_watch(watch.get(), ".", IN_CREATE);
  return shows(event, "eventfd-count:", "an eventfd") && shows(watching(event.get()), "tfd:", "an epoll") &&
         shows(signal, "sigmask:", "a signalfd") && shows(watch, "inotify wd:", "an inotify");
}

bool locked_pty() {
  const base::Fd master(::open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC));
  char name[64];
  if (!master || ::ptsname_r(master.get(), name, sizeof name) != 0) {
    return lacks("/dev/ptmx");
  }
  const base::Fd slave(::open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  return (!slave && errno == EIO) || lacks("a locked terminal");
}

bool mnt_id() { return shows(base::Fd(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)), "mnt_id:", "a directory"); }

bool timerfd() {
  const base::Fd fd(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  const std::uint64_t ticks = 1;
  return ::ioctl(fd.get(), set_ticks, &ticks) == 0 || lacks("TFD_IOC_SET_TICKS");
}

bool fdinfo_lock() {
  const base::Fd fd(::memfd_create("probe", MFD_CLOEXEC));
  ::flock(fd.get(), LOCK_EX);
  return shows(fd, "lock:", "a locked file");
}

bool kcmp_epoll() {
  const base::Fd event(::eventfd(0, EFD_CLOEXEC));
  const auto epoll = watching(event.get());
  kcmp_epoll_slot slot{static_cast<unsigned>(epoll.get()), static_cast<unsigned>(event.get()), 0};
  const auto self = ::getpid();
  return ::syscall(SYS_kcmp, self, self, KCMP_EPOLL_TFD, event.get(), &slot) == 0 || lacks("KCMP_EPOLL_TFD");
}

bool autofs() {
  return in_child([] {
    int ends[2];
    if (!private_tmp() || ::pipe(ends) != 0) {
      return false;
    }
    ::setpgid(0, 0);
    const auto options = fmt::format("fd={},pgrp={},minproto=5,maxproto=5,direct", ends[1], ::getpid());
    if (::mkdir("/tmp/auto", 0700) != 0 || ::mount("probe", "/tmp/auto", "autofs", 0, options.c_str()) != 0) {
      return lacks("mount an autofs");
    }
    const bool told = file_text("/proc/self/mountinfo").find("pipe_ino=") != std::string::npos;
    ::umount2("/tmp/auto", MNT_DETACH);
    return told;
  });
}

bool move_mount_set_group() {
  return in_child([] {
    if (!private_tmp()) {
      return false;
    }
    ::mkdir("/tmp/from", 0700);
    ::mkdir("/tmp/to", 0700);
    if (::mount("probe", "/tmp/from", "tmpfs", 0, nullptr) != 0 ||
        ::mount("/tmp/from", "/tmp/to", nullptr, MS_BIND, nullptr) != 0 ||
        ::mount(nullptr, "/tmp/from", nullptr, MS_SHARED, nullptr) != 0) {
      return lacks("two mounts of a tmpfs");
    }
    return ::syscall(SYS_move_mount, AT_FDCWD, "/tmp/from", AT_FDCWD, "/tmp/to", base::kernel::move_mount_set_group) ==
               0 ||
           lacks("MOVE_MOUNT_SET_GROUP");
  });
}

bool openat2() {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC;
  const base::Fd fd(static_cast<int>(::syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof how)));
  return fd || lacks("openat2");
}

}  // namespace criu::kernel::probe
