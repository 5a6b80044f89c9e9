// SPDX-License-Identifier: GPL-2.0-only
// Regular files, directories, devices, and what descriptors have of their own.
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "harness/live.hpp"

using namespace live;

namespace {

int make_file(const std::string& name, const std::string& text) {
  const int fd = ::open(scratch(name).c_str(), O_RDWR | O_CREAT | O_TRUNC, 0644);
  REQUIRE(fd >= 0);
  REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  return fd;
}

std::string contents(int fd) {
  std::array<char, 256> buffer{};
  const auto size = ::pread(fd, buffer.data(), buffer.size(), 0);
  return size < 0 ? "unreadable" : std::string(buffer.data(), static_cast<std::size_t>(size));
}

}  // namespace

LIVE_TEST("files: offset, access mode and numbers of descriptors") {
  const int fd = make_file("plain", "0123456789");
  REQUIRE(::lseek(fd, 4, SEEK_SET) == 4);
  const int read_only = ::open(scratch("plain").c_str(), O_RDONLY | O_NONBLOCK);
  REQUIRE(::dup2(read_only, 200) == 200);
  REQUIRE(::close(read_only) == 0);
  const int append = ::open(scratch("plain").c_str(), O_WRONLY | O_APPEND);
  REQUIRE(append >= 0);
  checkpoint_here();
  std::array<char, 2> two{};
  CHECK_EQ(::read(fd, two.data(), 2), 2);
  CHECK_EQ(std::string(two.data(), 2), "45");
  CHECK_EQ(::fcntl(200, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDONLY | O_NONBLOCK);
  CHECK_EQ(::fcntl(read_only, F_GETFD), append == read_only ? 0 : -1);
  CHECK_EQ(::write(append, "x", 1), 1);
  CHECK_EQ(contents(fd), "0123456789x");
}

LIVE_TEST("files: descriptions shared by dup and by fork") {
  const int fd = make_file("shared", "0123456789");
  const int twin = ::dup(fd);
  const int own = ::open(scratch("shared").c_str(), O_RDWR);
  REQUIRE(twin >= 0 && own >= 0);
  Child child([&] {
    checkpoint_here();
    CHECK_EQ(::lseek(fd, 7, SEEK_SET), 7);
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(::lseek(fd, 0, SEEK_CUR), 7);
  CHECK_EQ(::lseek(twin, 0, SEEK_CUR), 7);
  CHECK_EQ(::lseek(own, 0, SEEK_CUR), 0);
}

LIVE_TEST("files: close-on-exec belongs to the descriptor") {
  const int fd = make_file("cloexec", "x");
  const int twin = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  REQUIRE(twin >= 0);
  checkpoint_here();
  CHECK_EQ(::fcntl(fd, F_GETFD), 0);
  CHECK_EQ(::fcntl(twin, F_GETFD), FD_CLOEXEC);
}

LIVE_TEST("files: deleted while open") {
  const int fd = make_file("ghost", "ghost data");
  const int twin = ::open(scratch("ghost").c_str(), O_RDONLY);
  REQUIRE(twin >= 0);
  REQUIRE(::fchmod(fd, 0640) == 0);
  REQUIRE(::unlink(scratch("ghost").c_str()) == 0);
  checkpoint_here();
  CHECK_EQ(contents(twin), "ghost data");
  CHECK_EQ(::pwrite(fd, "GHOST", 5, 0), 5);
  CHECK_EQ(contents(twin), "GHOST data");  // still one file
  struct stat st {};
  CHECK_EQ(::fstat(fd, &st), 0);
  CHECK_EQ(st.st_nlink, 0U);
  CHECK_EQ(st.st_mode & 07777, 0640U);
  CHECK(::access(scratch("ghost").c_str(), F_OK) != 0);
}

LIVE_TEST("files: deleted while open, another link left", {.dump = {"--link-remap"}}) {
  const int fd = make_file("first", "linked");
  REQUIRE(::link(scratch("first").c_str(), scratch("second").c_str()) == 0);
  REQUIRE(::unlink(scratch("first").c_str()) == 0);
  checkpoint_here();
  CHECK_EQ(contents(fd), "linked");
  struct stat open_file {};
  struct stat other {};
  CHECK_EQ(::fstat(fd, &open_file), 0);
  CHECK_EQ(::stat(scratch("second").c_str(), &other), 0);
  CHECK_EQ(open_file.st_ino, other.st_ino);
  CHECK_EQ(open_file.st_nlink, 1U);
}

LIVE_TEST("files: deleted and larger than the ghost limit", {.dump_fails = "--ghost-limit"}) {
  const int fd = make_file("large", "");
  const std::string block(1 << 16, 'x');
  for (int i = 0; i < 32; ++i) {
    REQUIRE(::write(fd, block.data(), block.size()) == static_cast<ssize_t>(block.size()));
  }
  REQUIRE(::unlink(scratch("large").c_str()) == 0);
  checkpoint_here();
  CHECK_EQ(::lseek(fd, 0, SEEK_END), 32 << 16);
}

LIVE_TEST("files: a directory and an O_PATH descriptor") {
  REQUIRE(::mkdir(scratch("directory").c_str(), 0755) == 0);
  const int directory = ::open(scratch("directory").c_str(), O_RDONLY | O_DIRECTORY);
  const int path = ::open(scratch("directory").c_str(), O_PATH);
  REQUIRE(directory >= 0 && path >= 0);
  checkpoint_here();
  CHECK_EQ(::mkdirat(directory, "below", 0755), 0);
  CHECK_EQ(::faccessat(path, "below", F_OK, 0), 0);
  CHECK((::fcntl(path, F_GETFL) & O_PATH) != 0);
}

LIVE_TEST("files: the working directory") {
  REQUIRE(::mkdir(scratch("here").c_str(), 0755) == 0);
  REQUIRE(::chdir(scratch("here").c_str()) == 0);
  checkpoint_here();
  std::array<char, 4096> cwd{};
  CHECK(::getcwd(cwd.data(), cwd.size()) != nullptr);
  CHECK_EQ(std::string(cwd.data()), scratch("here"));
}

LIVE_TEST("files: a deleted working directory") {
  REQUIRE(::mkdir(scratch("doomed").c_str(), 0755) == 0);
  REQUIRE(::chdir(scratch("doomed").c_str()) == 0);
  REQUIRE(::rmdir(scratch("doomed").c_str()) == 0);
  checkpoint_here();
  struct stat st {};
  CHECK_EQ(::stat(".", &st), 0);
  CHECK_EQ(st.st_nlink, 0U);
}

LIVE_TEST("files: plain devices") {
  std::array<int, 5> fds{};
  std::size_t at = 0;
  for (const char* name : {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}) {
    fds[at] = ::open(name, O_RDWR);
    REQUIRE(fds[at] >= 0);
    ++at;
  }
  checkpoint_here();
  std::array<char, 8> bytes{};
  CHECK_EQ(::read(fds[0], bytes.data(), 8), 0);
  CHECK_EQ(::read(fds[1], bytes.data(), 8), 8);
  CHECK_EQ(::write(fds[2], "x", 1), -1);
  CHECK_EQ(::read(fds[4], bytes.data(), 8), 8);
}

LIVE_TEST("files: owner and signal of asynchronous input") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  REQUIRE(::fcntl(ends[0], F_SETOWN, ::getpid()) == 0);
  REQUIRE(::fcntl(ends[0], F_SETSIG, SIGRTMIN + 3) == 0);
  checkpoint_here();
  CHECK_EQ(::fcntl(ends[0], F_GETOWN), ::getpid());
  CHECK_EQ(::fcntl(ends[0], F_GETSIG), SIGRTMIN + 3);
}

LIVE_TEST("files: one that changed its size is found out",
          {.restore_fails = "changed",
           .tamper = [](const std::string& images) { std::filesystem::resize_file(images + "/../changed", 3); }}) {
  make_file("changed", "0123456789");
  checkpoint_here();
}

LIVE_TEST("files: in a directory that was renamed since") {
  REQUIRE(::mkdir(scratch("before").c_str(), 0755) == 0);
  const int fd = make_file("before/file", "0123456789");
  const int directory = ::open(scratch("before").c_str(), O_RDONLY | O_DIRECTORY);
  REQUIRE(directory >= 0);
  REQUIRE(::rename(scratch("before").c_str(), scratch("after").c_str()) == 0);
  checkpoint_here();
  CHECK_EQ(contents(fd), "0123456789");
  CHECK_EQ(std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd)).string(), scratch("after/file"));
  CHECK_EQ(::faccessat(directory, "file", F_OK, 0), 0);
}

LIVE_TEST("files: renamed while open, and another put in its place") {
  const int fd = make_file("name", "the old one");
  REQUIRE(::rename(scratch("name").c_str(), scratch("other").c_str()) == 0);
  ::close(make_file("name", "the new one"));
  checkpoint_here();
  CHECK_EQ(contents(fd), "the old one");
}

// The old one gets a name beside the new one's for as long as it needs one.
LIVE_TEST("files: deleted, and another put in its place", {.ignore = {"fd"}}) {
  const int fd = make_file("name", "the old one");
  REQUIRE(::unlink(scratch("name").c_str()) == 0);
  ::close(make_file("name", "the new one"));
  checkpoint_here();
  CHECK_EQ(contents(fd), "the old one");
  const int other = ::open(scratch("name").c_str(), O_RDONLY);
  CHECK_EQ(contents(other), "the new one");
}

LIVE_TEST("files: deleted with their directories") {
  REQUIRE(::mkdir(scratch("gone").c_str(), 0755) == 0);
  REQUIRE(::mkdir(scratch("gone/below").c_str(), 0755) == 0);
  const int fd = make_file("gone/below/file", "0123456789");
  const int directory = ::open(scratch("gone/below").c_str(), O_RDONLY | O_DIRECTORY);
  REQUIRE(directory >= 0);
  REQUIRE(::unlink(scratch("gone/below/file").c_str()) == 0);
  REQUIRE(::rmdir(scratch("gone/below").c_str()) == 0);
  REQUIRE(::rmdir(scratch("gone").c_str()) == 0);
  checkpoint_here();
  CHECK_EQ(contents(fd), "0123456789");
  struct stat st {};
  CHECK_EQ(::fstat(fd, &st), 0);
  CHECK_EQ(st.st_nlink, 0U);
  CHECK_EQ(::fstat(directory, &st), 0);
  CHECK_EQ(st.st_nlink, 0U);
  CHECK(!std::filesystem::exists(scratch("gone")));
}

LIVE_TEST("files: a name that ends like a deleted one's") {
  const int fd = make_file("odd (deleted)", "still there");
  checkpoint_here();
  CHECK_EQ(contents(fd), "still there");
  CHECK(std::filesystem::exists(scratch("odd (deleted)")));
}

LIVE_TEST("files: a description sent to another task") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  char byte = 0;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part, message.msg_iovlen = 1;
  message.msg_control = control, message.msg_controllen = sizeof control;
  Child child([&] {
    const int fd = make_file("sent", "0123456789");
    auto* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS, header->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
    REQUIRE(::sendmsg(ends[0], &message, 0) == 1);
    ::close(ends[0]), ::close(ends[1]);
    checkpoint_here();
    CHECK_EQ(::lseek(fd, 8, SEEK_SET), 8);
  });
  REQUIRE(::recvmsg(ends[1], &message, 0) == 1);
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  ::close(ends[0]), ::close(ends[1]);
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(::lseek(fd, 0, SEEK_CUR), 8);
}

LIVE_TEST("files: a root directory of its own") {
  REQUIRE(::mkdir(scratch("root").c_str(), 0755) == 0);
  REQUIRE(::mkdir(scratch("root/inside").c_str(), 0755) == 0);
  const int file = make_file("root/inside/file", "0123456789");
  Child child([&] {
    REQUIRE(::chroot(scratch("root").c_str()) == 0 && ::chdir("/inside") == 0);
    const int own = ::open("file", O_RDONLY);
    REQUIRE(own >= 0);
    checkpoint_here();
    std::array<char, 64> cwd{};
    const bool here = ::getcwd(cwd.data(), cwd.size()) != nullptr && std::strcmp(cwd.data(), "/inside") == 0;
    // Nothing can be written down in here.
    ::_exit(here && contents(own) == "0123456789" && ::access("/inside/file", F_OK) == 0 && ::access("/proc", F_OK) != 0
                ? 0
                : 1);
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(contents(file), "0123456789");
}

LIVE_TEST("files: the working directory was renamed") {
  REQUIRE(::mkdir(scratch("old").c_str(), 0755) == 0 && ::chdir(scratch("old").c_str()) == 0);
  REQUIRE(::rename(scratch("old").c_str(), scratch("new").c_str()) == 0);
  checkpoint_here();
  std::array<char, 4096> cwd{};
  CHECK(::getcwd(cwd.data(), cwd.size()) != nullptr);
  CHECK_EQ(std::string(cwd.data()), scratch("new"));
}

LIVE_TEST("files: one whose directory is missing at the restore",
          {.restore_fails = "lost/file",
           .tamper = [](const std::string& images) { std::filesystem::remove_all(images + "/../lost"); }}) {
  REQUIRE(::mkdir(scratch("lost").c_str(), 0755) == 0);
  make_file("lost/file", "0123456789");
  checkpoint_here();
}

LIVE_TEST("files: a deleted one whose directory has come back", {.ignore = {"fd"}}) {
  REQUIRE(::mkdir(scratch("again").c_str(), 0755) == 0);
  const int fd = make_file("again/file", "the old one");
  REQUIRE(::unlink(scratch("again/file").c_str()) == 0 && ::rmdir(scratch("again").c_str()) == 0);
  REQUIRE(::mkdir(scratch("again").c_str(), 0755) == 0);
  ::close(make_file("again/file", "the new one"));
  checkpoint_here();
  CHECK_EQ(contents(fd), "the old one");
}

LIVE_TEST("files: a mapped program that was built anew is found out",
          {.restore_fails = "build id", .tamper = [](const std::string& images) {
             // Somewhere in the note: the four bytes "GNU" stand before the id.
             std::fstream file(images + "/../library", std::ios::in | std::ios::out | std::ios::binary);
             std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
             const auto note = text.find(std::string("\3\0\0\0GNU\0", 8));
             file.clear();
             file.seekp(static_cast<std::streamoff>(note + 12));
             file.put(static_cast<char>(text[note + 12] ^ 1));
           }}) {
  std::filesystem::copy_file("/proc/self/exe", scratch("library"));
  const int fd = ::open(scratch("library").c_str(), O_RDONLY);
  REQUIRE(fd >= 0);
  REQUIRE(::mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) != MAP_FAILED);
  REQUIRE(::close(fd) == 0);
  checkpoint_here();
}

// It is opened anew by a name that it is given for the moment.
LIVE_TEST("files: without a name from the start", {.ignore = {"fd"}}) {
  const int fd = ::open(scratch(".").c_str(), O_RDWR | O_TMPFILE, 0600);
  if (fd < 0) {
    skip("this file system knows no O_TMPFILE");
  }
  REQUIRE(::write(fd, "unnamed", 7) == 7);
  checkpoint_here();
  CHECK_EQ(contents(fd), "unnamed");
  struct stat st {};
  CHECK_EQ(::fstat(fd, &st), 0);
  CHECK_EQ(st.st_nlink, 0U);
}

LIVE_TEST("files: O_PATH of a link, a device, a FIFO and what is deleted") {
  REQUIRE(::symlink("target", scratch("link").c_str()) == 0);
  REQUIRE(::mkfifo(scratch("fifo").c_str(), 0600) == 0);
  const int link = ::open(scratch("link").c_str(), O_PATH | O_NOFOLLOW);
  const int fifo = ::open(scratch("fifo").c_str(), O_PATH);
  const int device = ::open("/dev/null", O_PATH);
  ::close(make_file("doomed", "x"));
  const int gone = ::open(scratch("doomed").c_str(), O_PATH);
  REQUIRE(link >= 0 && fifo >= 0 && device >= 0 && gone >= 0 && ::unlink(scratch("doomed").c_str()) == 0);
  checkpoint_here();
  std::array<char, 16> text{};
  CHECK_EQ(::readlinkat(link, "", text.data(), text.size()), 6);
  struct stat st {};
  CHECK(::fstat(fifo, &st) == 0 && S_ISFIFO(st.st_mode));
  CHECK(::fstat(device, &st) == 0 && S_ISCHR(st.st_mode));
  CHECK(::fstat(gone, &st) == 0 && st.st_nlink == 0);
}

LIVE_TEST("files: of /proc and /sys") {
  const int status = ::open("/proc/self/status", O_RDONLY);
  const int task = ::open("/proc/self/task", O_RDONLY | O_DIRECTORY);
  const int system = ::open("/sys/kernel", O_RDONLY | O_DIRECTORY);
  REQUIRE(status >= 0 && task >= 0 && system >= 0);
  checkpoint_here();
  CHECK(contents(status).find("Name:") == 0);
  CHECK_EQ(::faccessat(task, std::to_string(::getpid()).c_str(), F_OK, 0), 0);
  CHECK_EQ(::faccessat(system, "mm", F_OK, 0), 0);
}

LIVE_TEST("files: input that is told of by a signal still is") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const int signal = SIGRTMIN + 3;
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, signal);
  REQUIRE(::sigprocmask(SIG_BLOCK, &mask, nullptr) == 0);
  REQUIRE(::fcntl(ends[0], F_SETOWN, ::getpid()) == 0 && ::fcntl(ends[0], F_SETSIG, signal) == 0);
  REQUIRE(::fcntl(ends[0], F_SETFL, O_ASYNC) == 0);
  checkpoint_here();
  CHECK_EQ(::write(ends[1], "x", 1), 1);
  siginfo_t info{};
  const timespec limit{10, 0};
  CHECK_EQ(::sigtimedwait(&mask, &info, &limit), signal);
  CHECK_EQ(info.si_fd, ends[0]);
}

LIVE_TEST("files: owners that are a group, a thread, or gone") {
  const pid_t gone = ::fork();
  if (gone == 0) {
    ::pause();
  }
  std::array<int, 3> fds{};
  for (auto& fd : fds) {
    fd = ::eventfd(0, 0);
    REQUIRE(fd >= 0);
  }
  const f_owner_ex group{F_OWNER_PGRP, ::getpgrp()};
  const f_owner_ex thread{F_OWNER_TID, static_cast<pid_t>(::syscall(SYS_gettid))};
  REQUIRE(::fcntl(fds[0], F_SETOWN_EX, &group) == 0 && ::fcntl(fds[1], F_SETOWN_EX, &thread) == 0);
  REQUIRE(::fcntl(fds[2], F_SETOWN, gone) == 0);
  REQUIRE(::kill(gone, SIGKILL) == 0 && ::waitpid(gone, nullptr, 0) == gone);
  checkpoint_here();
  f_owner_ex owner{};
  CHECK(::fcntl(fds[0], F_GETOWN_EX, &owner) == 0 && owner.type == F_OWNER_PGRP && owner.pid == ::getpgrp());
  CHECK(::fcntl(fds[1], F_GETOWN_EX, &owner) == 0 && owner.type == F_OWNER_TID && owner.pid == thread.pid);
  CHECK_EQ(::fcntl(fds[2], F_GETOWN), 0);
}

LIVE_TEST("files: one that is deleted, of two tasks and mapped") {
  const int fd = make_file("common", std::string(8192, 'c'));
  auto* at = static_cast<char*>(::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  REQUIRE(at != MAP_FAILED);
  Child child([&] {
    const int own = ::open(scratch("common").c_str(), O_RDWR);
    REQUIRE(own >= 0);
    checkpoint_here();
    CHECK_EQ(::pwrite(own, "child", 5, 100), 5);
  });
  REQUIRE(::unlink(scratch("common").c_str()) == 0);
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(std::string(at + 100, 5), "child");
  CHECK_EQ(contents(fd).substr(100, 5), "child");
}
