// SPDX-License-Identifier: GPL-2.0-only
// Regular files, directories, devices, and what descriptors have of their own.
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
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
