// SPDX-License-Identifier: GPL-2.0-only
// Trees with users of their own: who they are, what belongs to them, and what a restore must not give them.
#include <fcntl.h>
#include <grp.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/capability.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <vector>

#include "base/fd.hpp"
#include "harness/live.hpp"

using namespace live;

namespace {

constexpr const char* extents = "0 100000 100\n100 300000 10\n5000 400000 60000\n";

struct stat look(const std::string& path) {
  struct stat stat {};
  REQUIRE(::stat(path.c_str(), &stat) == 0);
  return stat;
}

// The user namespace that another namespace belongs to.
ino_t owner_of(const std::string& ns) {
  const base::Fd fd(::open(("/proc/self/ns/" + ns).c_str(), O_RDONLY | O_CLOEXEC));
  const base::Fd owner(::ioctl(fd.get(), NS_GET_USERNS));
  REQUIRE(owner);
  struct stat stat {};
  REQUIRE(::fstat(owner.get(), &stat) == 0);
  return stat.st_ino;
}

void copy_file(const std::string& from, const std::string& to, mode_t mode) {
  std::filesystem::copy_file(from, to);
  REQUIRE(::chmod(to.c_str(), mode) == 0);
}

// What a program prints that somebody else starts.
std::string output_of(const std::string& program, const char* argument, uid_t user) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const auto pid = ::fork();
  if (pid == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    if (::setresuid(user, user, user) == 0) {
      ::execl(program.c_str(), program.c_str(), argument, nullptr);
    }
    ::_exit(127);
  }
  ::close(ends[1]);
  std::string text(64, '\0');
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(::read(ends[0], text.data(), text.size()), 0)));
  ::close(ends[0]);
  ::waitpid(pid, nullptr, 0);
  return text;
}

void remove_userns_image(const std::string& images) {
  for (const auto& file : std::filesystem::directory_iterator(images)) {
    if (file.path().filename().string().starts_with("userns-")) {
      std::filesystem::remove(file.path());
    }
  }
}

constexpr const char* ping_groups = "/proc/sys/net/ipv4/ping_group_range";

void fewer_groups(const std::string& images) {
  for (const auto& file : std::filesystem::directory_iterator(images)) {
    if (file.path().filename().string().starts_with("netns-")) {
      auto text = read_text(file.path());
      if (const auto at = text.find("50\t105"); at != std::string::npos) {
        text.replace(at, 6, "50\t104");
        std::ofstream(file.path(), std::ios::binary) << text;
      }
    }
  }
}

}  // namespace

// The range spans both extents, whose ids outside are far apart. The image has it as the tree does: with one group less
// there, the tree finds one less.
LIVE_TEST("users: groups that may ping",
          {.users = {extents, extents}, .tamper = fewer_groups, .most_rounds = 1, .not_dry = true}) {
  REQUIRE(::mount(nullptr, "/proc/sys", nullptr, MS_REMOUNT | MS_BIND, nullptr) == 0);  // no longer read-only
  std::ofstream(ping_groups) << "50 105";
  REQUIRE(read_text(ping_groups) == "50\t105\n");
  checkpoint_here();
  CHECK_EQ(read_text(ping_groups), std::string("50\t104\n"));
}

LIVE_TEST("users: several ranges of them, and files of each", {.users = {extents, extents}}) {
  const std::string top = "/dev/shm/criu-live-users";
  REQUIRE(::mkdir(top.c_str(), 0777) == 0);
  const std::array<uid_t, 4> users{0, 99, 105, 64999};
  for (const auto user : users) {
    for (const auto& path : {top + "/" + std::to_string(user), scratch(std::to_string(user))}) {
      ::close(::open(path.c_str(), O_WRONLY | O_CREAT, 0644));
      REQUIRE(::chown(path.c_str(), user, user) == 0);
    }
  }
  REQUIRE(::chown((top + "/0").c_str(), 4000, 0) < 0);  // there is no such user
  const auto map = read_text("/proc/self/uid_map"), groups = read_text("/proc/self/gid_map");
  const auto nobody = look("/etc").st_uid;
  checkpoint_here();
  CHECK_EQ(read_text("/proc/self/uid_map"), map);
  CHECK_EQ(read_text("/proc/self/gid_map"), groups);
  for (const auto user : users) {
    for (const auto& path : {top + "/" + std::to_string(user), scratch(std::to_string(user))}) {
      CHECK_EQ(look(path).st_uid, user);
      CHECK_EQ(look(path).st_gid, user);
    }
  }
  CHECK(::chown((top + "/0").c_str(), 4000, 0) < 0 && errno == EINVAL);
  CHECK_EQ(look("/etc").st_uid, nobody);
  CHECK(::chown("/etc", 0, 0) < 0 && errno == EPERM);
}

LIVE_TEST("users: groups that nobody may change", {.users = {.deny_setgroups = true}}) {
  std::vector<gid_t> groups(8);
  const int count = ::getgroups(static_cast<int>(groups.size()), groups.data());
  REQUIRE(count == 2);
  groups.resize(2);
  Child child([&] {
    REQUIRE(::setresgid(7, 7, 7) == 0 && ::setresuid(7, 7, 7) == 0);
    checkpoint_here();
    std::vector<gid_t> now(8);
    CHECK_EQ(::getgroups(static_cast<int>(now.size()), now.data()), 2);
    now.resize(2);
    CHECK(now == groups && ::getuid() == 7 && ::getgid() == 7);
  });
  checkpoint_here();
  std::vector<gid_t> now(8);
  CHECK_EQ(::getgroups(static_cast<int>(now.size()), now.data()), 2);
  now.resize(2);
  CHECK(now == groups);
  CHECK_EQ(read_text("/proc/self/setgroups"), "deny\n");
  CHECK(::setgroups(0, nullptr) < 0 && errno == EPERM);
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("users: all namespaces are theirs", {.users = {.any = true}}) {
  checkpoint_here();
  const auto users = look("/proc/self/ns/user").st_ino;
  for (const char* ns : {"pid", "mnt", "uts", "ipc", "net"}) {
    CHECK_EQ(owner_of(ns), users);
  }
  // Root there may do with them what it may.
  CHECK_EQ(::sethostname("another", 7), 0);
  CHECK_EQ(::mount("fresh", "/dev/shm", "tmpfs", 0, nullptr), 0);
  CHECK_EQ(std::system("ip link set lo down"), 0);
  // And nothing else.
  CHECK(::mount("fresh", "/dev/shm", "devtmpfs", 0, nullptr) < 0 && errno == EPERM);
  CHECK(::mknod(scratch("device").c_str(), S_IFCHR | 0600, 0x103) < 0 && errno == EPERM);
}

LIVE_TEST("users: a program that runs as its owner", {.users = {.any = true}}) {
  const std::string top = "/dev/shm/criu-live-setuid";
  REQUIRE(::mkdir(top.c_str(), 0755) == 0 && ::mount("programs", top.c_str(), "tmpfs", 0, "mode=755") == 0);
  copy_file("/usr/bin/id", top + "/as-root", 04755);
  copy_file("/usr/bin/id", top + "/as-user", 0755);
  REQUIRE(::chown((top + "/as-user").c_str(), 42, 0) == 0 && ::chmod((top + "/as-user").c_str(), 04755) == 0);
  REQUIRE(output_of(top + "/as-root", "-u", 1000) == "0\n");
  checkpoint_here();
  CHECK_EQ(output_of(top + "/as-root", "-u", 1000), "0\n");
  CHECK_EQ(output_of(top + "/as-user", "-u", 1000), "42\n");
}

LIVE_TEST("users: who a task is to others, and who a peer was", {.users = {.any = true}}) {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const std::vector<gid_t> groups{10, 3000, 65535};
  Child child([&] {
    REQUIRE(::setgroups(groups.size(), groups.data()) == 0);
    REQUIRE(::prctl(PR_SET_KEEPCAPS, 1) == 0);
    REQUIRE(::setresgid(2001, 2002, 2003) == 0 && ::setresuid(1001, 1002, 1003) == 0);
    checkpoint_here();
    CHECK(::prctl(PR_CAPBSET_READ, CAP_SYS_ADMIN) == 1);
    std::vector<gid_t> now(groups.size());
    CHECK_EQ(::getgroups(static_cast<int>(now.size()), now.data()), static_cast<int>(groups.size()));
    CHECK(now == groups);
  });
  const auto seen = [&] {
    return status_field("Uid", child.pid()) + "|" + status_field("Gid", child.pid()) + "|" +
           status_field("CapPrm", child.pid()) + status_field("CapEff", child.pid());
  };
  const auto before = seen();
  REQUIRE(before.starts_with("1001\t1002\t1003\t1002|2001\t2002\t2003\t2002|"));
  checkpoint_here();
  CHECK_EQ(seen(), before);
  ucred peer{};
  socklen_t size = sizeof peer;
  CHECK(::getsockopt(ends[0], SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == 0 && peer.gid == 0);
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("users: what is locked on mounts of the host stays locked", {.users = {.any = true}}) {
  const auto try_to_clear = [] {
    mount_attr attributes{};
    attributes.attr_clr = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
    return ::mount_setattr(AT_FDCWD, "/dev/null", 0, &attributes, sizeof attributes) == 0 ? 0 : errno;
  };
  REQUIRE(try_to_clear() == EPERM);
  checkpoint_here();
  CHECK_EQ(try_to_clear(), EPERM);
}

LIVE_TEST("users: further ones within the tree are refused by name", {.dump_fails = "namespaces of its own (user)"}) {
  Child child([] {
    REQUIRE(::unshare(CLONE_NEWUSER) == 0);
    checkpoint_here();
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("users: those of a tree whose other namespaces are the host's are refused by name",
          {.not_contained = true, .dump_fails = "and these do not: pid, mnt, uts, ipc, net"}) {
  REQUIRE(::unshare(CLONE_NEWUSER) == 0);
  checkpoint_here();
}

LIVE_TEST("users: a checkpoint that does not say who they are",
          {.users = {.any = true}, .restore_fails = "open image: userns-", .tamper = remove_userns_image}) {
  checkpoint_here();
}
