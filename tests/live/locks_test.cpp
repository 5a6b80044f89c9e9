// SPDX-License-Identifier: GPL-2.0-only
// File locks and leases: who holds what, before and after.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>

#include "harness/live.hpp"

using namespace live;

namespace {

const Options with_locks{.dump = {"--file-locks"}, .restore = {"--file-locks"}};

int open_file(const std::string& name, int flags = O_RDWR) {
  const int fd = ::open(scratch(name).c_str(), flags | O_CREAT | O_CLOEXEC, 0644);
  REQUIRE(fd >= 0);
  return fd;
}

struct flock range(int type, off_t start, off_t length) {
  struct flock lock {};
  lock.l_type = static_cast<short>(type);
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

bool lock(int fd, int type, off_t start, off_t length) {
  auto wanted = range(type, start, length);
  return ::fcntl(fd, F_SETLK, &wanted) == 0;
}

bool ofd_lock(int fd, int type, off_t start, off_t length) {
  auto wanted = range(type, start, length);
  return ::fcntl(fd, F_OFD_SETLK, &wanted) == 0;
}

// Who is in the way of a POSIX lock: a pid, -1 for an open file description, 0 for nobody.
pid_t in_the_way(int fd, int type, off_t start, off_t length) {
  auto wanted = range(type, start, length);
  REQUIRE(::fcntl(fd, F_GETLK, &wanted) == 0);
  return wanted.l_type == F_UNLCK ? 0 : wanted.l_pid;
}

// What a process of its own finds: it has none of our locks.
int in_another(const std::function<bool()>& check) {
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::_exit(check() ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  return status;
}

}  // namespace

LIVE_TEST("locks: POSIX locks of two tasks on one file, mapped and open twice", with_locks) {
  const int fd = open_file("file");
  const int again = open_file("file");
  REQUIRE(::ftruncate(fd, 8192) == 0);
  const void* mapped = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(mapped != MAP_FAILED);
  REQUIRE(lock(fd, F_WRLCK, 0, 10) && lock(again, F_RDLCK, 20, 5) && lock(fd, F_WRLCK, 1000, 0));
  const pid_t parent = ::getpid();
  Child child([&] {
    REQUIRE(lock(fd, F_RDLCK, 20, 1) && lock(fd, F_WRLCK, 40, 1));
    checkpoint_here();
    CHECK_EQ(in_the_way(fd, F_RDLCK, 0, 1), parent);
    CHECK_EQ(in_the_way(fd, F_WRLCK, 22, 1), parent);
    CHECK_EQ(in_the_way(fd, F_RDLCK, 22, 1), 0);
    CHECK_EQ(in_the_way(fd, F_RDLCK, 123456, 1), parent);
  });
  checkpoint_here();
  CHECK_EQ(in_the_way(fd, F_WRLCK, 20, 1), child.pid());
  CHECK_EQ(in_the_way(fd, F_WRLCK, 40, 1), child.pid());
  CHECK_EQ(in_the_way(fd, F_WRLCK, 10, 10), 0);
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(in_the_way(fd, F_WRLCK, 40, 1), 0);
  // They go with any descriptor of the file.
  ::close(again);
  CHECK_EQ(in_another([&] { return in_the_way(fd, F_WRLCK, 0, 0) == 0; }), 0);
}

LIVE_TEST("locks: flock after fork and dup belongs to the description", with_locks) {
  const int fd = open_file("file");
  const int twin = ::dup(fd);
  const int other = open_file("file");
  REQUIRE(::flock(fd, LOCK_EX) == 0);
  Child child([&] {
    checkpoint_here();
    CHECK_EQ(::flock(fd, LOCK_EX | LOCK_NB), 0);
    CHECK_EQ(::flock(other, LOCK_SH | LOCK_NB), -1);
  });
  checkpoint_here();
  CHECK_EQ(::flock(twin, LOCK_EX | LOCK_NB), 0);
  CHECK_EQ(::flock(other, LOCK_SH | LOCK_NB), -1);
  CHECK_EQ(errno, EWOULDBLOCK);
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(::flock(other, LOCK_SH | LOCK_NB), -1);
  CHECK_EQ(::close(fd), 0);
  CHECK_EQ(::flock(other, LOCK_SH | LOCK_NB), -1);
  CHECK_EQ(::flock(twin, LOCK_UN), 0);
  CHECK_EQ(::flock(other, LOCK_SH | LOCK_NB), 0);
}

LIVE_TEST("locks: a flock that a child took on the parent's description, and a shared one", with_locks) {
  const int fd = open_file("file");
  const int a = open_file("shared", O_RDONLY);
  const int b = open_file("shared", O_RDONLY);
  REQUIRE(::flock(a, LOCK_SH) == 0 && ::flock(b, LOCK_SH) == 0);
  Child child([&] {
    REQUIRE(::flock(fd, LOCK_EX) == 0);
    checkpoint_here();
  });
  checkpoint_here();
  const int other = open_file("file");
  CHECK_EQ(::flock(other, LOCK_SH | LOCK_NB), -1);
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(::flock(other, LOCK_SH | LOCK_NB), -1);
  CHECK_EQ(::flock(b, LOCK_EX | LOCK_NB), -1);
  CHECK_EQ(::flock(a, LOCK_UN), 0);
  CHECK_EQ(::flock(b, LOCK_EX | LOCK_NB), 0);
}

LIVE_TEST("locks: OFD locks, beside POSIX ones on the same description", with_locks) {
  const int fd = open_file("file");
  REQUIRE(ofd_lock(fd, F_WRLCK, 0, 100) && ofd_lock(fd, F_RDLCK, 200, 1) && lock(fd, F_WRLCK, 500, 1));
  Child child([&] {
    checkpoint_here();
    CHECK(ofd_lock(fd, F_WRLCK, 50, 10));  // it is the same description
    CHECK_EQ(in_the_way(fd, F_WRLCK, 500, 1), ::getppid());
  });
  checkpoint_here();
  const int other = open_file("file");
  CHECK(!ofd_lock(other, F_RDLCK, 99, 1));
  CHECK(ofd_lock(other, F_RDLCK, 200, 1));
  CHECK_EQ(in_the_way(other, F_WRLCK, 0, 1), -1);
  CHECK(ofd_lock(other, F_WRLCK, 100, 100));
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("locks: leases for reading and for writing, with their signal", with_locks) {
  sigset_t blocked;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGRTMIN + 3);
  ::sigaddset(&blocked, SIGIO);
  REQUIRE(::sigprocmask(SIG_BLOCK, &blocked, nullptr) == 0);
  ::close(open_file("read"));
  const int reader = open_file("read", O_RDONLY);
  const int writer = open_file("write", O_RDWR);
  if (::fcntl(reader, F_SETLEASE, F_RDLCK) != 0 || ::fcntl(writer, F_SETLEASE, F_WRLCK) != 0) {
    skip("no leases on this filesystem");
  }
  REQUIRE(::fcntl(writer, F_SETSIG, SIGRTMIN + 3) == 0);
  checkpoint_here();
  CHECK_EQ(::fcntl(reader, F_GETLEASE), F_RDLCK);
  CHECK_EQ(::fcntl(writer, F_GETLEASE), F_WRLCK);
  sigset_t pending;
  ::sigpending(&pending);
  CHECK(!::sigismember(&pending, SIGRTMIN + 3) && !::sigismember(&pending, SIGIO));
  CHECK_EQ(::open(scratch("read").c_str(), O_WRONLY | O_NONBLOCK), -1);
  CHECK_EQ(errno, EWOULDBLOCK);
  CHECK_EQ(::open(scratch("write").c_str(), O_RDONLY | O_NONBLOCK), -1);
  siginfo_t info{};
  CHECK_EQ(::sigwaitinfo(&blocked, &info), SIGIO);
  CHECK_EQ(::sigwaitinfo(&blocked, &info), SIGRTMIN + 3);
  CHECK_EQ(info.si_fd, writer);
  CHECK_EQ(::fcntl(writer, F_SETLEASE, F_UNLCK), 0);
  CHECK_EQ(::fcntl(reader, F_SETLEASE, F_UNLCK), 0);
}

LIVE_TEST("locks: leases that are being broken", with_locks) {
  ::signal(SIGIO, SIG_IGN);
  ::close(open_file("read"));
  const int reader = open_file("read", O_RDONLY);
  const int writer = open_file("write", O_RDWR);
  const int lessened = open_file("lessened", O_RDWR);
  if (::fcntl(reader, F_SETLEASE, F_RDLCK) != 0 || ::fcntl(writer, F_SETLEASE, F_WRLCK) != 0 ||
      ::fcntl(lessened, F_SETLEASE, F_WRLCK) != 0) {
    skip("no leases on this filesystem");
  }
  REQUIRE(::open(scratch("read").c_str(), O_WRONLY | O_NONBLOCK) < 0);
  REQUIRE(::open(scratch("write").c_str(), O_WRONLY | O_NONBLOCK) < 0);
  REQUIRE(::open(scratch("lessened").c_str(), O_RDONLY | O_NONBLOCK) < 0);
  REQUIRE(::fcntl(lessened, F_GETLEASE) == F_RDLCK);
  checkpoint_here();
  CHECK_EQ(::fcntl(reader, F_GETLEASE), F_UNLCK);
  CHECK_EQ(::fcntl(writer, F_GETLEASE), F_UNLCK);
  CHECK_EQ(::fcntl(lessened, F_GETLEASE), F_RDLCK);
  // Who comes later still waits for an answer.
  CHECK_EQ(::open(scratch("write").c_str(), O_WRONLY | O_NONBLOCK), -1);
  CHECK_EQ(::fcntl(writer, F_SETLEASE, F_UNLCK), 0);
  const int open = ::open(scratch("write").c_str(), O_WRONLY | O_NONBLOCK);
  CHECK(open >= 0);
  ::close(open);
}

LIVE_TEST("locks: who waits for a lock waits on", with_locks) {
  const int posix = open_file("posix");
  const int whole = open_file("whole");
  REQUIRE(lock(posix, F_WRLCK, 0, 1) && ::flock(whole, LOCK_EX) == 0);
  Child waits_posix(
      [&] {
        auto wanted = range(F_WRLCK, 0, 1);
        CHECK_EQ(::fcntl(posix, F_SETLKW, &wanted), 0);
      },
      [](pid_t pid) { await_syscall(pid, SYS_fcntl); });
  Child waits_whole(
      [&] {
        const int own = open_file("whole");
        CHECK_EQ(::flock(own, LOCK_EX), 0);
      },
      [](pid_t pid) { await_syscall(pid, SYS_flock); });
  checkpoint_here();
  await_syscall(waits_posix.pid(), SYS_fcntl);
  await_syscall(waits_whole.pid(), SYS_flock);
  CHECK(lock(posix, F_UNLCK, 0, 1));
  CHECK_EQ(::flock(whole, LOCK_UN), 0);
  CHECK_EQ(waits_posix.join(), 0);
  CHECK_EQ(waits_whole.join(), 0);
}

LIVE_TEST("locks: those of others on the same file are left alone",
          {.dump = {"--file-locks"}, .restore = {"--file-locks"}, .outside = [] {
             const int fd = open_file("file");
             REQUIRE(::fchmod(fd, 0666) == 0);  // for the root of a user namespace, who is nobody here
             REQUIRE(lock(fd, F_WRLCK, 100, 1) && ofd_lock(fd, F_WRLCK, 200, 1));
             outside_ready();
             await([] { return ::access(scratch("end").c_str(), F_OK) == 0; }, "the test ends");
           }}) {
  const int fd = open_file("file");
  REQUIRE(lock(fd, F_WRLCK, 0, 1));
  const auto other = in_the_way(fd, F_WRLCK, 100, 1);
  REQUIRE(other > 0 || in_container());  // there it has no pid
  checkpoint_here();
  CHECK_EQ(in_the_way(fd, F_WRLCK, 100, 1), other);
  CHECK_EQ(in_the_way(fd, F_WRLCK, 200, 1), -1);
  CHECK_EQ(in_another([&] { return in_the_way(fd, F_WRLCK, 0, 1) == ::getppid(); }), 0);
  ::close(open_file("end"));
}

LIVE_TEST("locks: a lock that somebody took meanwhile", {.dump = {"--file-locks"},
                                                         .restore = {"--file-locks"},
                                                         .restore_fails = "take the lock on descriptor",
                                                         .tamper = [](const std::string& images) {
                                                           // Held by the harness, for as long as it lives.
                                                           const int fd = ::open((images + "/../file").c_str(),
                                                                                 O_RDWR | O_CLOEXEC);
                                                           struct flock wanted = range(F_WRLCK, 0, 0);
                                                           ::fcntl(fd, F_OFD_SETLK, &wanted);
                                                         }}) {
  const int fd = open_file("file");
  REQUIRE(lock(fd, F_WRLCK, 0, 1));
  checkpoint_here();
}

LIVE_TEST("locks: --file-locks is missing at the dump", {.dump_fails = "holds a file lock (1: POSIX"}) {
  const int fd = open_file("file");
  REQUIRE(lock(fd, F_WRLCK, 3, 4));
  checkpoint_here();
  CHECK_EQ(in_another([&] { return in_the_way(fd, F_WRLCK, 3, 1) == ::getppid(); }), 0);
}

LIVE_TEST("locks: --file-locks is missing at the dump, and the child alone holds one",
          {.dump_fails = "--file-locks saves them"}) {
  const int fd = open_file("file");
  Child child([&] {
    REQUIRE(lock(fd, F_WRLCK, 3, 4));
    checkpoint_here();
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("locks: --file-locks is missing at the restore",
          {.dump = {"--file-locks"}, .restore_fails = "--file-locks takes them again"}) {
  const int fd = open_file("file");
  REQUIRE(::flock(fd, LOCK_EX) == 0);
  checkpoint_here();
}
