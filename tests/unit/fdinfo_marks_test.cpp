// SPDX-License-Identifier: GPL-2.0-only
#include "kernel/fdinfo_marks.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "kernel/mounts.hpp"

using namespace criu::kernel;

TEST_CASE("inotify watches, with and without a handle") {
  const auto marks = inotify_marks(
      "pos:\t0\nflags:\t00\nmnt_id:\t17\nino:\t1038\n"
      "inotify wd:4d ino:a720b6 sdev:fe00000 mask:80000002 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 "
      "f_handle:b620a70071afef8e\n"
      "inotify wd:1 ino:1 sdev:2c mask:4000fff ignored_mask:0 \n");
  REQUIRE(marks.size() == 2);
  CHECK(marks[0].wd == 77);
  CHECK(marks[0].ino == 0xa720b6);
  CHECK(marks[0].dev == 0xfe00000);
  CHECK(marks[0].mask == 0x80000002);
  CHECK(marks[0].handle.type == 1);
  CHECK(marks[0].handle.bytes == std::string("\xb6\x20\xa7\x00\x71\xaf\xef\x8e", 8));
  CHECK(marks[1].handle.bytes.empty());
}

TEST_CASE("fanotify marks of all kinds") {
  const auto group = fanotify_group(
      "fanotify flags:200 event-flags:8000\n"
      "fanotify ino:b6 sdev:fe00000 mflags:40 mask:0 ignored_mask:2 fhandle-bytes:8 fhandle-type:1 "
      "f_handle:b620a70071afef8e\n"
      "fanotify mnt_id:1d mflags:0 mask:20 ignored_mask:0\n"
      "fanotify sdev:1a mflags:0 mask:20 ignored_mask:0\n");
  CHECK(group.flags == 0x200);
  CHECK(group.event_flags == 0x8000);
  REQUIRE(group.marks.size() == 3);
  CHECK(group.marks[0].on == WatchMark::On::inode);
  CHECK(group.marks[0].flags == 0x40);
  CHECK(group.marks[0].ignored_mask == 2);
  CHECK(group.marks[1].on == WatchMark::On::mount);
  CHECK(group.marks[1].mnt_id == 0x1d);
  CHECK(group.marks[2].on == WatchMark::On::filesystem);
  CHECK(group.marks[2].dev == 0x1a);
}

TEST_CASE("marks that are not understood are not passed over") {
  CHECK_THROWS_AS(inotify_marks("inotify wd:x ino:1 sdev:1 mask:1 ignored_mask:0\n"), base::Error);
  CHECK_THROWS_AS(inotify_marks("inotify wd:1 ino:1 sdev:1 mask:1 ignored_mask:0 fhandle-bytes:9 fhandle-type:1 "
                                "f_handle:b620\n"),
                  base::Error);
  CHECK_THROWS_AS(fanotify_group("fanotify mnt_ns:4026531840 mflags:0 mask:1 ignored_mask:0\n"), base::Error);
}

TEST_CASE("file locks of all kinds") {
  const auto locks = file_locks(
      "ino:\t10952886\n"
      "lock:\t1: FLOCK  ADVISORY  WRITE 9242 fe:00:10952886 0 EOF\n"
      "lock:\t2: POSIX  ADVISORY  READ 9242 fe:00:10952886 5 11\n"
      "lock:\t3: OFDLCK ADVISORY  WRITE -1 fe:00:10952886 100 EOF\n"
      "lock:\t4: LEASE  BREAKING  UNLCK 9300 fe:00:10952887 0 EOF\n"
      "lock:\t5: FLOCK  MSNFS     READ  9300 fe:00:10952887 0 EOF\n");
  REQUIRE(locks.size() == 5);
  CHECK(locks[0].kind == FileLock::Kind::flock);
  CHECK(locks[0].type == F_WRLCK);
  CHECK(locks[0].pid == 9242);
  CHECK(locks[1].kind == FileLock::Kind::posix);
  CHECK(locks[1].type == F_RDLCK);
  CHECK(locks[1].start == 5);
  CHECK(locks[1].length == 7);
  CHECK(locks[2].pid == -1);
  CHECK(locks[2].length == 0);
  CHECK(locks[3].kind == FileLock::Kind::lease);
  CHECK(locks[3].breaking);
  CHECK(locks[3].type == F_UNLCK);
  CHECK(locks[4].mandatory == (LOCK_MAND | LOCK_READ));
  CHECK_THROWS_AS(file_locks("lock:\t1: POSIX  ADVISORY  READ 9242 fe:00:10952886 5 4\n"), base::Error);
  CHECK_THROWS_AS(file_locks("lock:\t1: DELEG  ACTIVE  READ 9242 fe:00:10952886 0 EOF\n"), base::Error);
}

TEST_CASE("mounts, with odd names and optional fields") {
  const auto mounts = parse_mountinfo(
      "26 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
      "27 26 0:24 /sub\\040dir /mnt/a\\040b ro,nosuid shared:1 master:2 - tmpfs none ro\n"
      "nonsense\n");
  REQUIRE(mounts.size() == 2);
  CHECK(mounts[0].id == 26);
  CHECK(mounts[0].dev == 254U << 20);
  CHECK(mounts[0].type == "ext4");
  CHECK(mounts[1].root == "/sub dir");
  CHECK(mounts[1].point == "/mnt/a b");
  CHECK(mounts[1].type == "tmpfs");
}
