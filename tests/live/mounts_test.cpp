// SPDX-License-Identifier: GPL-2.0-only
// Mounts of a tree that has them for itself. That each is where it was, with its options and flags and the same
// neighbours, is compared by the harness; the tests make them and look at what is in them.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "harness/live.hpp"

using namespace live;

namespace {

constexpr const char* base = "/dev/shm/criu-live-mounts";  // in memory, and the tree's own in a container

std::string place(const std::string& name) { return std::string(base) + "/" + name; }

// What the machine happens to have mounted and no dump takes without being asked: bound namespaces, the kernel's
// tracing.
void drop_mounts_of_the_machine() {
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    if (line.find(" - nsfs ") != std::string::npos || line.find(" - tracefs ") != std::string::npos) {
      std::istringstream fields(line);
      std::string id, parent, device, root, path;
      fields >> id >> parent >> device >> root >> path;
      ::umount2(path.c_str(), MNT_DETACH);
    }
  }
}

// A file system of our own to make mounts in, so that nothing of them stays anywhere.
void own_mounts() {
  if (!in_container()) {
    REQUIRE(::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    drop_mounts_of_the_machine();
    REQUIRE(::mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") == 0);
  }
  REQUIRE(::mkdir(base, 0755) == 0);
}

void make_directory(const std::string& name) { REQUIRE(::mkdir(place(name).c_str(), 0755) == 0); }

void write_text(const std::string& name, const std::string& text) { std::ofstream(place(name)) << text; }

void mount_tmpfs(const std::string& name, unsigned long flags = 0, const char* options = nullptr) {
  make_directory(name);
  REQUIRE(::mount(name.c_str(), place(name).c_str(), "tmpfs", flags, options) == 0);
}

void bind(const std::string& from, const std::string& to, unsigned long flags = 0) {
  REQUIRE(::mount(place(from).c_str(), place(to).c_str(), nullptr, MS_BIND, nullptr) == 0);
  if (flags != 0) {
    REQUIRE(::mount(nullptr, place(to).c_str(), nullptr, MS_REMOUNT | MS_BIND | flags, nullptr) == 0);
  }
}

void set_propagation(const std::string& name, unsigned long type) {
  REQUIRE(::mount(nullptr, place(name).c_str(), nullptr, type, nullptr) == 0);
}

bool same_file(int fd, const std::string& path) {
  struct stat here {
  }, there{};
  return ::fstat(fd, &here) == 0 && ::lstat(path.c_str(), &there) == 0 && here.st_dev == there.st_dev &&
         here.st_ino == there.st_ino;
}

bool is_there(const std::string& name) { return ::access(place(name).c_str(), F_OK) == 0; }

}  // namespace

LIVE_TEST("mounts: a tmpfs with all that can be in it") {
  own_mounts();
  mount_tmpfs("full", MS_NOSUID | MS_NOATIME, "size=10m,nr_inodes=1000,mode=750,uid=7,gid=8");
  write_text("full/file", "contents");
  REQUIRE(::chown(place("full/file").c_str(), 1001, 1002) == 0 && ::chmod(place("full/file").c_str(), 04711) == 0);
  REQUIRE(::link(place("full/file").c_str(), place("full/second").c_str()) == 0);
  REQUIRE(::symlink("nowhere/at all", place("full/link").c_str()) == 0);
  REQUIRE(::mkfifo(place("full/fifo").c_str(), 0600) == 0 && ::chmod(place("full/fifo").c_str(), 0620) == 0);
  // In a user namespace nobody may make devices, or attributes of this kind.
  const bool all = !in_user_namespace();
  REQUIRE(!all || ::mknod(place("full/device").c_str(), S_IFCHR | 0600, makedev(1, 5)) == 0);
  const char* attribute = all ? "trusted.mark" : "user.mark";
  REQUIRE(::setxattr(place("full/file").c_str(), attribute, "of ours", 7, 0) == 0);
  make_directory("full/deep");
  write_text("full/deep/" + std::string(200, 'n'), "long name");
  const int sparse = ::open(place("full/sparse").c_str(), O_RDWR | O_CREAT, 0600);
  REQUIRE(sparse >= 0 && ::ftruncate(sparse, 1L << 30) == 0 && ::pwrite(sparse, "end", 3, (1L << 30) - 3) == 3);
  const timespec times[] = {{1000000000, 123456789}, {1100000000, 987654321}};
  REQUIRE(::utimensat(AT_FDCWD, place("full/file").c_str(), times, 0) == 0);
  const int held = ::open(place("full/file").c_str(), O_RDONLY);
  REQUIRE(held >= 0);
  checkpoint_here();
  CHECK_EQ(read_text(place("full/second")), "contents");
  struct stat file {
  }, second{}, other{};
  CHECK_EQ(::fstat(held, &file), 0);
  CHECK_EQ(::stat(place("full/second").c_str(), &second), 0);
  CHECK(file.st_ino == second.st_ino && file.st_nlink == 2);
  CHECK(file.st_uid == 1001 && file.st_gid == 1002 && (file.st_mode & 07777) == 04711);
  CHECK(file.st_mtim.tv_sec == times[1].tv_sec && file.st_mtim.tv_nsec == times[1].tv_nsec);
  char text[32] = {};
  CHECK_EQ(::readlink(place("full/link").c_str(), text, sizeof text - 1), 14);
  CHECK_EQ(std::string(text), "nowhere/at all");
  CHECK(::lstat(place("full/fifo").c_str(), &other) == 0 && S_ISFIFO(other.st_mode) && (other.st_mode & 0777) == 0620);
  CHECK(!all || (::lstat(place("full/device").c_str(), &other) == 0 && other.st_rdev == makedev(1, 5)));
  char mark[8] = {};
  CHECK_EQ(::getxattr(place("full/file").c_str(), attribute, mark, sizeof mark), 7);
  CHECK_EQ(std::string(mark), "of ours");
  CHECK_EQ(read_text(place("full/deep/" + std::string(200, 'n'))), "long name");
  CHECK(::fstat(sparse, &other) == 0 && other.st_size == 1L << 30 && other.st_blocks < 100);
  CHECK(::pread(sparse, mark, 3, (1L << 30) - 3) == 3 && std::string(mark, 3) == "end");
  CHECK(::stat(place("full").c_str(), &other) == 0 && other.st_uid == 7 && other.st_gid == 8);
  CHECK_EQ(other.st_mode & 07777, 0750U);
}

LIVE_TEST("mounts: on mounts, over mounts, and below one that covers them") {
  own_mounts();
  mount_tmpfs("outer");
  mount_tmpfs("outer/inner");
  write_text("outer/inner/file", "inner");
  make_directory("outer/covered");
  write_text("outer/covered/file", "below");
  mount_tmpfs("outer/covered/deeper");
  write_text("outer/covered/deeper/file", "deeper");
  REQUIRE(::mount("cover", place("outer/covered").c_str(), "tmpfs", 0, nullptr) == 0);
  write_text("outer/covered/file", "above");
  checkpoint_here();
  CHECK_EQ(read_text(place("outer/inner/file")), "inner");
  CHECK_EQ(read_text(place("outer/covered/file")), "above");
  CHECK_EQ(::umount2(place("outer/covered").c_str(), 0), 0);
  CHECK_EQ(read_text(place("outer/covered/file")), "below");
  CHECK_EQ(read_text(place("outer/covered/deeper/file")), "deeper");
}

LIVE_TEST("mounts: bound directories and files, read-only and with flags of their own") {
  own_mounts();
  mount_tmpfs("whole");
  make_directory("whole/part");
  write_text("whole/part/file", "shown");
  make_directory("part");
  write_text("one", "hidden");
  bind("whole/part", "part", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME);
  bind("whole/part/file", "one", MS_RDONLY);
  checkpoint_here();
  CHECK_EQ(read_text(place("one")), "shown");
  write_text("whole/part/file", "changed");
  CHECK_EQ(read_text(place("one")), "changed");
  CHECK_EQ(read_text(place("part/file")), "changed");
  CHECK(::open(place("part/new").c_str(), O_CREAT | O_WRONLY, 0600) < 0 && errno == EROFS);
}

// A child whose mounts differ from the tree's: only there is "inner", with what `body` does.
LIVE_TEST("mounts: a child in a further namespace", {.dump = {"--link-remap"}}) {
  own_mounts();
  mount_tmpfs("both");
  write_text("both/file", "of both");
  make_directory("inner");
  Child child([] {
    REQUIRE(::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    REQUIRE(::mount("inner", place("inner").c_str(), "tmpfs", MS_NODEV, "mode=711") == 0);
    write_text("inner/file", "of the child");
    write_text("inner/removed", "without a name");
    write_text("inner/linked", "with another name");
    REQUIRE(::link(place("inner/linked").c_str(), place("inner/other").c_str()) == 0);
    make_directory("inner/work");
    const int file = ::open(place("inner/file").c_str(), O_RDWR), outer = ::open(place("both/file").c_str(), O_RDWR);
    const int removed = ::open(place("inner/removed").c_str(), O_RDWR);
    const int linked = ::open(place("inner/linked").c_str(), O_RDWR);
    REQUIRE(file >= 0 && outer >= 0 && removed >= 0 && linked >= 0);
    REQUIRE(::unlink(place("inner/removed").c_str()) == 0 && ::unlink(place("inner/linked").c_str()) == 0);
    REQUIRE(::chdir(place("inner/work").c_str()) == 0);
    checkpoint_here();
    char text[32] = {};
    CHECK(::pread(file, text, sizeof text, 0) == 12 && std::string(text) == "of the child");
    CHECK(::pread(outer, text, 7, 0) == 7 && std::string(text, 7) == "of both");
    CHECK(::pread(removed, text, sizeof text, 0) == 14 && std::string(text, 14) == "without a name");
    CHECK(::pread(linked, text, sizeof text, 0) == 17 && std::string(text, 17) == "with another name");
    CHECK(same_file(linked, place("inner/other")) && same_file(outer, place("both/file")));
    CHECK(!is_there("inner/removed") && !is_there("inner/linked"));
    CHECK_EQ(read_text("../file"), "of the child");
  });
  checkpoint_here();
  CHECK(!is_there("inner/file"));
  CHECK_EQ(read_text(place("both/file")), "of both");
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("mounts: namespaces that share mounts, one that has another root, and one whose file others have") {
  own_mounts();
  mount_tmpfs("shared");
  set_propagation("shared", MS_SHARED);
  make_directory("shared/late");
  mount_tmpfs("root", MS_NOSUID);
  for (const char* name : {"root/proc", "root/old"}) {
    make_directory(name);
  }
  Child slave([] {
    REQUIRE(::unshare(CLONE_NEWNS) == 0);
    set_propagation("shared", MS_SLAVE);
    checkpoint_here();
    CHECK_EQ(read_text(place("shared/late/file")), "passed on");
    CHECK(::mount("own", place("shared").c_str(), "tmpfs", 0, nullptr) == 0);
  });
  Child other([] {
    REQUIRE(::unshare(CLONE_NEWNS) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
    REQUIRE(::chdir(place("root").c_str()) == 0 && ::mount("proc", "proc", "proc", 0, nullptr) == 0);
    REQUIRE(::syscall(SYS_pivot_root, ".", "old") == 0 && ::umount2("/old", MNT_DETACH) == 0 && ::chdir("/") == 0);
    const int file = ::open("/only", O_RDWR | O_CREAT, 0600);
    REQUIRE(file >= 0 && ::write(file, "only here", 9) == 9);
    REQUIRE(::dup2(file, 100) == 100);
    checkpoint_here();
    CHECK_EQ(read_text("/only"), "only here");
    CHECK(::access("/proc/self/status", F_OK) == 0 && ::access("/dev", F_OK) != 0);
  });
  const int file =
      static_cast<int>(::syscall(SYS_pidfd_getfd, static_cast<int>(::syscall(SYS_pidfd_open, other.pid(), 0)), 100, 0));
  REQUIRE(file >= 0);
  checkpoint_here();
  CHECK(same_file(file, place("root/only")));
  CHECK(::mount("late", place("shared/late").c_str(), "tmpfs", 0, nullptr) == 0);
  write_text("shared/late/file", "passed on");
  CHECK_EQ(slave.finish(), 0);
  CHECK_EQ(read_text(place("shared/late/file")), "passed on");  // what the slave has mounted is not
  CHECK_EQ(other.finish(), 0);
}

LIVE_TEST("mounts: files and a working directory that a mount hides") {
  own_mounts();
  mount_tmpfs("below");
  make_directory("below/work");
  write_text("below/file", "hidden");
  write_text("below/work/file", "deep");
  const int file = ::open(place("below/file").c_str(), O_RDWR);
  const int directory = ::open(place("below/work").c_str(), O_RDONLY | O_DIRECTORY);
  REQUIRE(file >= 0 && directory >= 0 && ::lseek(file, 2, SEEK_SET) == 2 && ::chdir(place("below/work").c_str()) == 0);
  char* mapped = static_cast<char*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file, 0));
  REQUIRE(mapped != MAP_FAILED);
  REQUIRE(::mount("cover", place("below").c_str(), "tmpfs", 0, nullptr) == 0);
  write_text("below/file", "in front");
  checkpoint_here();
  char text[8] = {};
  CHECK(::read(file, text, 4) == 4 && std::string(text, 4) == "dden");
  CHECK_EQ(std::string(mapped, 6), "hidden");
  CHECK_EQ(read_text("file"), "deep");
  CHECK_EQ(read_text(place("below/file")), "in front");
  const int inside = ::openat(directory, "file", O_RDONLY);
  CHECK(inside >= 0 && ::close(inside) == 0);
  CHECK_EQ(::umount2(place("below").c_str(), 0), 0);
  CHECK(same_file(file, place("below/file")) && same_file(directory, place("below/work")));
}

// Their numbers are others afterwards.
LIVE_TEST("mounts: a descriptor of another mount namespace of the tree", {.ignore = {"fd"}}) {
  own_mounts();
  Child child([] {
    REQUIRE(::unshare(CLONE_NEWNS) == 0);
    mount_tmpfs("only");
    checkpoint_here();
  });
  const int fd = ::open(("/proc/" + std::to_string(child.pid()) + "/ns/mnt").c_str(), O_RDONLY);
  REQUIRE(fd >= 0);
  checkpoint_here();
  struct stat there {
  }, held{}, own{};
  CHECK(::stat(("/proc/" + std::to_string(child.pid()) + "/ns/mnt").c_str(), &there) == 0);
  CHECK(::fstat(fd, &held) == 0 && ::stat("/proc/self/ns/mnt", &own) == 0);
  CHECK(held.st_ino == there.st_ino && held.st_ino != own.st_ino);
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("mounts: peers, slaves, slaves with peers of their own, and private ones") {
  own_mounts();
  mount_tmpfs("source");
  set_propagation("source", MS_SHARED);
  make_directory("source/point");
  make_directory("source/part");
  make_directory("source/part/point");
  for (const char* name : {"peer", "slave", "both", "peer-of-both", "private", "part"}) {
    make_directory(name);
  }
  bind("source", "peer");
  bind("source", "slave");
  set_propagation("slave", MS_SLAVE);
  bind("slave", "both");
  set_propagation("both", MS_SHARED);
  bind("both", "peer-of-both");
  bind("source", "private");
  set_propagation("private", MS_PRIVATE);
  bind("source/part", "part");
  checkpoint_here();
  REQUIRE(::mount("new", place("peer/point").c_str(), "tmpfs", 0, nullptr) == 0);
  write_text("source/point/file", "");
  for (const char* name : {"peer", "slave", "both", "peer-of-both"}) {
    CHECK(is_there(name + std::string("/point/file")));
  }
  CHECK(!is_there("private/point/file"));
  REQUIRE(::mount("new", place("part/point").c_str(), "tmpfs", 0, nullptr) == 0);
  write_text("source/part/point/file", "");
  CHECK(is_there("both/part/point/file"));
  REQUIRE(::mount("new", place("both/part").c_str(), "tmpfs", 0, nullptr) == 0);
  write_text("both/part/file", "");
  CHECK(is_there("peer-of-both/part/file") && !is_there("slave/part/file") && !is_there("source/part/file"));
}

LIVE_TEST("mounts: file systems of the kernel, read-only as a whole or with options") {
  own_mounts();
  mount_tmpfs("sealed", 0, "size=1m");
  write_text("sealed/file", "kept");
  REQUIRE(::mount(nullptr, place("sealed").c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) == 0);
  make_directory("pts");
  REQUIRE(::mount("pts", place("pts").c_str(), "devpts", 0, "newinstance,mode=0600,ptmxmode=0640") == 0);
  make_directory("queues");
  REQUIRE(::mount("queues", place("queues").c_str(), "mqueue", MS_NOEXEC, nullptr) == 0);
  make_directory("proc");
  REQUIRE(::mount("proc", place("proc").c_str(), "proc", MS_NOSUID, "hidepid=invisible") == 0);
  checkpoint_here();
  CHECK_EQ(read_text(place("sealed/file")), "kept");
  CHECK(::open(place("sealed/new").c_str(), O_CREAT | O_WRONLY, 0600) < 0 && errno == EROFS);
  CHECK_EQ(::access(place("pts/ptmx").c_str(), F_OK), 0);
  CHECK(read_text(place("proc/self/status")).find("Name:") == 0);
}

LIVE_TEST("mounts: working directory and files on mounts of the tree's own, one that is deleted") {
  own_mounts();
  mount_tmpfs("work");
  write_text("work/file", "0123456789");
  const int file = ::open(place("work/file").c_str(), O_RDWR);
  const int gone = ::open(place("work/gone").c_str(), O_RDWR | O_CREAT, 0600);
  REQUIRE(file >= 0 && gone >= 0 && ::write(gone, "ghost", 5) == 5 && ::unlink(place("work/gone").c_str()) == 0);
  REQUIRE(::lseek(file, 5, SEEK_SET) == 5 && ::chdir(place("work").c_str()) == 0);
  checkpoint_here();
  char text[6] = {};
  CHECK(::read(file, text, 5) == 5 && std::string(text) == "56789");
  CHECK(::pread(gone, text, 5, 0) == 5 && std::string(text) == "ghost");
  CHECK_EQ(::access("file", F_OK), 0);
  CHECK(!is_there("work/gone"));
}

LIVE_TEST("mounts: one that is left out",
          {.dump = {"--skip-mnt", "/dev/shm/criu-live-mounts/left"}, .not_dry = true, .ignore = {"mounts"}}) {
  own_mounts();
  mount_tmpfs("left");
  mount_tmpfs("left/on it");
  mount_tmpfs("kept");
  write_text("left/file", "");
  write_text("kept/file", "");
  checkpoint_here();
  CHECK(is_there("left") && !is_there("left/file") && is_there("kept/file"));
}

LIVE_TEST("mounts: what is shown was deleted") {
  own_mounts();
  mount_tmpfs("whole");
  make_directory("whole/doomed");
  write_text("whole/file", "");
  for (const char* name : {"shown", "again"}) {
    make_directory(name);
    bind("whole/doomed", name);
  }
  write_text("point", "");
  bind("whole/file", "point");
  REQUIRE(::rmdir(place("whole/doomed").c_str()) == 0 && ::unlink(place("whole/file").c_str()) == 0);
  checkpoint_here();
  struct stat shown {
  }, again{};
  REQUIRE(::stat(place("shown").c_str(), &shown) == 0 && ::stat(place("again").c_str(), &again) == 0);
  CHECK(shown.st_ino == again.st_ino);
  CHECK(::mkdir(place("shown/new").c_str(), 0755) < 0 && errno == ENOENT);
  CHECK_EQ(read_text(place("point")), "");
  write_text("point", "still a file");
  CHECK_EQ(read_text(place("point")), "still a file");
  REQUIRE(::truncate(place("point").c_str(), 0) == 0);
  CHECK(std::filesystem::is_empty(place("whole")));
}

LIVE_TEST("mounts: what is shown was deleted, and its name is another's today", {.ignore = {"mounts"}}) {
  own_mounts();
  mount_tmpfs("whole");
  make_directory("whole/doomed");
  make_directory("shown");
  bind("whole/doomed", "shown");
  REQUIRE(::rmdir(place("whole/doomed").c_str()) == 0);
  make_directory("whole/doomed");
  checkpoint_here();
  struct stat shown {
  }, named{};
  REQUIRE(::stat(place("shown").c_str(), &shown) == 0 && ::stat(place("whole/doomed").c_str(), &named) == 0);
  CHECK(shown.st_ino != named.st_ino);
  CHECK(::mkdir(place("shown/new").c_str(), 0755) < 0 && errno == ENOENT);
  CHECK_EQ(std::distance(std::filesystem::directory_iterator(place("whole")), {}), 1);
}

LIVE_TEST("mounts: a file is shown that was deleted with something in it",
          {.dump_fails = "has been deleted, and its contents would be lost"}) {
  own_mounts();
  mount_tmpfs("whole");
  write_text("whole/file", "contents");
  write_text("point", "");
  bind("whole/file", "point");
  REQUIRE(::unlink(place("whole/file").c_str()) == 0);
  checkpoint_here();
}

LIVE_TEST("mounts: contents that others cover, one upon the other") {
  own_mounts();
  mount_tmpfs("place");
  write_text("place/file", "1");
  mount_tmpfs("place/deep");
  write_text("place/deep/file", "2");
  REQUIRE(::mount("over", place("place/deep").c_str(), "tmpfs", 0, nullptr) == 0);
  write_text("place/deep/file", "3");
  REQUIRE(::mount("over", place("place").c_str(), "tmpfs", 0, nullptr) == 0);
  write_text("place/file", "4");
  mount_tmpfs("place/deep");
  write_text("place/deep/file", "5");
  REQUIRE(::mount("over", place("place").c_str(), "tmpfs", 0, nullptr) == 0);
  checkpoint_here();
  CHECK(!is_there("place/file"));
  CHECK_EQ(::umount2(place("place").c_str(), 0), 0);
  CHECK_EQ(read_text(place("place/file")) + read_text(place("place/deep/file")), "45");
  CHECK_EQ(::umount2(place("place").c_str(), MNT_DETACH), 0);
  CHECK_EQ(read_text(place("place/file")) + read_text(place("place/deep/file")), "13");
  CHECK_EQ(::umount2(place("place/deep").c_str(), 0), 0);
  CHECK_EQ(read_text(place("place/deep/file")), "2");
}

LIVE_TEST("mounts: a part of what is not mounted whole", {.dump_fails = "of a file system that is not mounted whole"}) {
  own_mounts();
  mount_tmpfs("whole");
  make_directory("whole/part");
  make_directory("shown");
  bind("whole/part", "shown");
  REQUIRE(::umount2(place("whole").c_str(), MNT_DETACH) == 0);
  checkpoint_here();
}

LIVE_TEST("mounts: one from outside that the restore is not told of",
          {.dump = {"--external", "mnt[/dev/shm/criu-live-mounts/given]:theirs"},
           .restore_fails = "--external mnt[theirs]:PATH says what to take for it"}) {
  own_mounts();
  mount_tmpfs("given");
  checkpoint_here();
}

LIVE_TEST("mounts: one from outside, found there", {.dump = {"--external", "mnt[]"}, .restore = {"-M", "auto"}}) {
  own_mounts();
  make_directory("etc");
  REQUIRE(::mount("/etc", place("etc").c_str(), nullptr, MS_BIND, nullptr) == 0);
  REQUIRE(::mount(nullptr, place("etc").c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == 0);
  checkpoint_here();
  struct stat here {
  }, there{};
  CHECK(::stat(place("etc/passwd").c_str(), &here) == 0 && ::stat("/etc/passwd", &there) == 0);
  CHECK(here.st_dev == there.st_dev && here.st_ino == there.st_ino);
}

LIVE_TEST("mounts: one found outside, and a restore that is not to look there",
          {.dump = {"--external", "mnt[]"}, .restore_fails = "--external mnt[] takes it from the same place here: /"}) {
  own_mounts();
  make_directory("etc");
  REQUIRE(::mount("/etc", place("etc").c_str(), nullptr, MS_BIND, nullptr) == 0);
  checkpoint_here();
}

LIVE_TEST("mounts: a file system of a type that has to be named",
          {.dump = {"--enable-fs", "tracefs,ramfs"}, .restore = {"--enable-fs", "all"}}) {
  own_mounts();
  make_directory("ram");
  REQUIRE(::mount("memory", place("ram").c_str(), "ramfs", MS_NODEV, "mode=711") == 0);
  checkpoint_here();
  struct stat root {};
  CHECK(::stat(place("ram").c_str(), &root) == 0 && (root.st_mode & 07777) == 0711);
}

LIVE_TEST("mounts: a file system of a type that has to be named and is not",
          {.dump_fails = "--enable-fs ramfs tries to"}) {
  own_mounts();
  make_directory("ram");
  REQUIRE(::mount("memory", place("ram").c_str(), "ramfs", 0, nullptr) == 0);
  checkpoint_here();
}
