// SPDX-License-Identifier: GPL-2.0-only
// inotify and fanotify.
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "harness/live.hpp"

using namespace live;

namespace {

void touch(const std::string& path) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  REQUIRE(fd >= 0);
  REQUIRE(::write(fd, "x", 1) == 1);
  REQUIRE(::close(fd) == 0);
}

// "wd:mask:name" of everything that waits, one after the other; masks without IN_ISDIR.
std::string events(int inotify) {
  alignas(inotify_event) std::array<char, 8192> room{};
  std::string out;
  for (;;) {
    const auto got = ::read(inotify, room.data(), room.size());
    if (got <= 0) {
      return out;
    }
    for (ssize_t at = 0; at < got;) {
      const auto* event = reinterpret_cast<const inotify_event*>(room.data() + at);
      out += (out.empty() ? "" : " ") + std::to_string(event->wd) + ":" + std::to_string(event->mask & ~IN_ISDIR) +
             ":" + (event->len > 0 ? event->name : "");
      at += static_cast<ssize_t>(sizeof *event + event->len);
    }
  }
}

std::string told(int wd, unsigned mask, const std::string& name = {}) {
  return std::to_string(wd) + ":" + std::to_string(mask) + ":" + name;
}

int watch(int inotify, const std::string& path, unsigned mask) {
  const int wd = ::inotify_add_watch(inotify, path.c_str(), mask);
  REQUIRE(wd > 0);
  return wd;
}

int make_inotify() {
  const int fd = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  REQUIRE(fd >= 0);
  return fd;
}

std::string make_directory(const std::string& name) {
  auto path = scratch(name);
  REQUIRE(::mkdir(path.c_str(), 0755) == 0);
  return path;
}

// A directory on a tmpfs, gone with its owner.
class ShmDirectory {
 public:
  ShmDirectory() : path_("/dev/shm/criu-live-" + std::to_string(::getpid())) {
    REQUIRE(::mkdir(path_.c_str(), 0755) == 0);
  }
  ~ShmDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ShmDirectory(const ShmDirectory&) = delete;
  ShmDirectory& operator=(const ShmDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

LIVE_TEST("watches: inotify on a directory and a file, with every event and flag") {
  const int fd = make_inotify();
  const auto directory = make_directory("watched");
  touch(scratch("file"));
  const int all = watch(fd, directory, IN_ALL_EVENTS | IN_EXCL_UNLINK);
  const int once = watch(fd, scratch("file"), IN_MODIFY | IN_ONESHOT);
  checkpoint_here();
  // Nothing of the restore is heard.
  CHECK_EQ(events(fd), "");
  touch(directory + "/new");
  CHECK_EQ(events(fd), told(all, IN_CREATE, "new") + " " + told(all, IN_OPEN, "new") + " " +
                           told(all, IN_MODIFY, "new") + " " + told(all, IN_CLOSE_WRITE, "new"));
  touch(scratch("file"));
  touch(scratch("file"));
  CHECK_EQ(events(fd), told(once, IN_MODIFY) + " " + told(once, IN_IGNORED));
}

LIVE_TEST("watches: numbers of inotify watches are kept, whatever was removed, and the next is a fresh one") {
  const int fd = make_inotify();
  std::vector<int> kept;
  for (int i = 0; i < 40; ++i) {
    const auto path = make_directory("d" + std::to_string(i));
    const int wd = watch(fd, path, IN_CREATE);
    if (i % 7 == 3) {
      kept.push_back(wd);
    } else {
      REQUIRE(::inotify_rm_watch(fd, wd) == 0);
    }
  }
  // Far off, and the newest of all.
  REQUIRE(::ioctl(fd, _IOW('I', 0, std::int32_t), 1000000000) == 0);
  const int far = watch(fd, make_directory("far"), IN_CREATE);
  REQUIRE(far == 1000000000);
  events(fd);
  checkpoint_here();
  for (std::size_t i = 0; i < kept.size(); ++i) {
    touch(scratch("d" + std::to_string(i * 7 + 3)) + "/x");
    CHECK_EQ(events(fd), told(kept[i], IN_CREATE, "x"));
  }
  touch(scratch("far") + "/x");
  CHECK_EQ(events(fd), told(far, IN_CREATE, "x"));
  CHECK(watch(fd, make_directory("later"), IN_CREATE) > far);
}

LIVE_TEST("watches: inotify on what moved, and on what was removed and is open") {
  const int fd = make_inotify();
  touch(scratch("moves"));
  touch(scratch("goes"));
  const auto directory = make_directory("leaves");
  const int moved = watch(fd, scratch("moves"), IN_ATTRIB);
  const int gone = watch(fd, scratch("goes"), IN_MODIFY);
  const int left = watch(fd, directory, IN_CREATE);
  const int open = ::open(scratch("goes").c_str(), O_RDWR);
  REQUIRE(open >= 0 && ::unlink(scratch("goes").c_str()) == 0);
  REQUIRE(::rename(scratch("moves").c_str(), scratch("moved").c_str()) == 0);
  REQUIRE(::rename(directory.c_str(), scratch("left").c_str()) == 0);
  touch(scratch("moves"));  // another file by the old name
  events(fd);
  checkpoint_here();
  CHECK_EQ(events(fd), "");
  CHECK_EQ(::chmod(scratch("moves").c_str(), 0600), 0);
  CHECK_EQ(events(fd), "");
  CHECK_EQ(::chmod(scratch("moved").c_str(), 0600), 0);
  CHECK_EQ(events(fd), told(moved, IN_ATTRIB));
  CHECK_EQ(::write(open, "y", 1), 1);
  CHECK_EQ(events(fd), told(gone, IN_MODIFY));
  touch(scratch("left") + "/x");
  CHECK_EQ(events(fd), told(left, IN_CREATE, "x"));
}

LIVE_TEST("watches: inotify on filesystems in memory and on roots") {
  const ShmDirectory shm;
  touch(shm.path() + "/file");
  const int fd = make_inotify();
  const int file = watch(fd, shm.path() + "/file", IN_MODIFY);
  const int directory = watch(fd, shm.path(), IN_DELETE);
  const int root = watch(fd, "/", IN_CREATE);
  watch(fd, "/proc", IN_CREATE);
  watch(fd, "/dev/null", IN_ATTRIB);
  watch(fd, "/sys", IN_CREATE);
  checkpoint_here();
  CHECK_EQ(events(fd), "");
  touch(shm.path() + "/file");
  CHECK_EQ(events(fd), told(file, IN_MODIFY));
  CHECK_EQ(::unlink((shm.path() + "/file").c_str()), 0);
  CHECK_EQ(events(fd).substr(0, 1 + std::to_string(directory).size()), std::to_string(file) + ":");
  if (in_user_namespace()) {
    return;  // where nobody may write to the root directory of the host
  }
  const auto name = "criu-live-" + std::to_string(::getpid());
  CHECK_EQ(::mkdir(("/" + name).c_str(), 0700), 0);
  CHECK_EQ(events(fd), told(root, IN_CREATE, name));
  CHECK_EQ(::rmdir(("/" + name).c_str()), 0);
}

LIVE_TEST("watches: inotify shared by fork, watched by epoll, and two of one task") {
  const int fd = make_inotify();
  const int other = make_inotify();
  const int epoll = ::epoll_create1(0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 5;
  REQUIRE(epoll >= 0 && ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
  const auto directory = make_directory("watched");
  const int wd = watch(fd, directory, IN_CREATE);
  const int wd_other = watch(other, directory, IN_DELETE);
  Child child([&] {
    checkpoint_here();
    CHECK_EQ(events(fd), told(wd, IN_CREATE, "x"));
  });
  checkpoint_here();
  CHECK_EQ(::epoll_wait(epoll, &event, 1, 0), 0);
  touch(directory + "/x");
  CHECK_EQ(::epoll_wait(epoll, &event, 1, 0), 1);
  CHECK_EQ(event.data.u64, 5U);
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(events(fd), "");
  CHECK_EQ(::unlink((directory + "/x").c_str()), 0);
  CHECK_EQ(events(other), told(wd_other, IN_DELETE, "x"));
}

LIVE_TEST("watches: inotify that waits in a queue",
          {.dump_fails = "it is not open in a task, only on its way to one"}) {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const int fd = make_inotify();
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> room{};
  char byte = 'x';
  iovec data{&byte, 1};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = room.data();
  message.msg_controllen = room.size();
  auto* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  REQUIRE(::sendmsg(ends[0], &message, 0) == 1 && ::close(fd) == 0);
  checkpoint_here();
  CHECK_EQ(::recvmsg(ends[1], &message, 0), 1);
}

LIVE_TEST("watches: events of inotify that nobody has read are told of",
          {.tamper =
               [](const std::string& images) {
                 // A later round has none.
                 if (images.ends_with("-1") &&
                     read_text(images + "/dump.log").find("bytes of events that nobody has read") ==
                         std::string::npos) {
                   std::ofstream(images + "/../failures") << "the dump did not tell of unread events\n";
                 }
               },
           .not_dry = true}) {
  const int fd = make_inotify();
  const auto directory = make_directory("watched");
  const int wd = watch(fd, directory, IN_CREATE);
  touch(directory + "/unread");
  checkpoint_here();
  CHECK_EQ(events(fd), "");
  touch(directory + "/x");
  CHECK_EQ(events(fd), told(wd, IN_CREATE, "x"));
}

LIVE_TEST("watches: a file that only somebody else has open",
          {.dump_fails = "on a file without a name that nothing in the tree has open", .outside = [] {
             const int fd = ::open(scratch("foreign").c_str(), O_RDWR | O_CREAT, 0644);
             REQUIRE(fd >= 0);
             outside_ready();
             await([] { return ::access(scratch("end").c_str(), F_OK) == 0; }, "the test ends");
           }}) {
  const int fd = make_inotify();
  watch(fd, scratch("foreign"), IN_ATTRIB);
  REQUIRE(::unlink(scratch("foreign").c_str()) == 0);
  events(fd);
  checkpoint_here();
  touch(scratch("end"));
}

LIVE_TEST("watches: paths are found by scanning",
          {.dump = {"--force-irmap", "--irmap-scan-path", "/dev/shm/criu-live-scan"},
           .tamper =
               [](const std::string&) {
                 // Another inode by the same path is as good.
                 const std::string path = "/dev/shm/criu-live-scan/deep/target";
                 ::unlink(path.c_str());
                 std::ofstream(path) << "new";
               },
           .not_dry = true}) {
  const std::string top = "/dev/shm/criu-live-scan";
  std::error_code ignored;
  std::filesystem::remove_all(top, ignored);
  std::filesystem::create_directories(top + "/deep");
  touch(top + "/deep/target");
  const int fd = make_inotify();
  const int wd = watch(fd, top + "/deep/target", IN_MODIFY);
  const int etc = watch(fd, "/etc/passwd", IN_ATTRIB);
  checkpoint_here();
  touch(top + "/deep/target");
  CHECK_EQ(events(fd), told(wd, IN_MODIFY));
  CHECK(etc > wd);
  std::filesystem::remove_all(top, ignored);
}

LIVE_TEST("watches: a path that scanning does not find",
          {.dump = {"--force-irmap"},
           .needs_true_root = "write to /opt",
           .dump_fails = "whose path is not found (--irmap-scan-path names a directory"}) {
  const int fd = make_inotify();
  std::error_code ignored;
  const std::string top = "/opt/criu-live-hidden-" + std::to_string(::getpid());
  std::filesystem::create_directories(top);
  watch(fd, top, IN_CREATE);
  checkpoint_here();
  std::filesystem::remove_all(top, ignored);
}

LIVE_TEST("watches: paths are found in the cache of an earlier scan",
          {.dump = {"--force-irmap", "-W", "/dev/shm/criu-live-work"}, .not_contained = true}) {
  const std::string work = "/dev/shm/criu-live-work", target = "/opt/criu-live-cached";
  std::error_code ignored;
  std::filesystem::create_directories(work);
  std::filesystem::create_directories(target);
  struct stat st {};
  REQUIRE(::stat(target.c_str(), &st) == 0);
  // Two magics, then records: their size, device (1), inode (2) and path (3). The first is of a file that moved since.
  std::string record, file("\x40\x59\x10\x55\x59\x40\x00\x57", 8);
  const auto put = [&](std::string_view path) {
    record = {0x08, 0x01, 0x10};
    for (auto inode = st.st_ino; inode != 0; inode >>= 7) {
      record.push_back(static_cast<char>((inode & 0x7f) | (inode >> 7 != 0 ? 0x80 : 0)));
    }
    record += {0x1a, static_cast<char>(path.size())};
    record += path;
    file += {static_cast<char>(record.size()), 0, 0, 0};
    file += record;
  };
  put("/etc/passwd");
  put(target);
  std::ofstream(work + "/irmap-cache", std::ios::binary) << file;
  const int fd = make_inotify();
  const int wd = watch(fd, target, IN_CREATE);
  checkpoint_here();
  touch(target + "/x");
  CHECK_EQ(events(fd), told(wd, IN_CREATE, "x"));
  std::filesystem::remove_all(work, ignored);
  std::filesystem::remove_all(target, ignored);
}

LIVE_TEST("watches: a target that is gone at the restore",
          {.restore_fails = "is not there any more",
           .tamper = [](const std::string& images) { ::unlink((images + "/../target").c_str()); }}) {
  const int fd = make_inotify();
  touch(scratch("target"));
  watch(fd, scratch("target"), IN_MODIFY);
  checkpoint_here();
}

LIVE_TEST("watches: fanotify on inodes, with what is ignored") {
  const int fd = ::fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_CLOEXEC | FAN_UNLIMITED_MARKS, O_RDONLY);
  if (fd < 0) {
    skip("no fanotify");
  }
  const auto directory = make_directory("watched");
  touch(scratch("file"));
  touch(directory + "/quiet");
  REQUIRE(::fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY | FAN_EVENT_ON_CHILD, AT_FDCWD, directory.c_str()) == 0);
  REQUIRE(::fanotify_mark(fd, FAN_MARK_ADD, FAN_MODIFY, AT_FDCWD, scratch("file").c_str()) == 0);
  REQUIRE(::fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_MODIFY, AT_FDCWD,
                          (directory + "/quiet").c_str()) == 0);
  checkpoint_here();
  const auto next = [&]() -> std::string {
    alignas(fanotify_event_metadata) std::array<char, 4096> room{};
    const auto got = ::read(fd, room.data(), sizeof(fanotify_event_metadata));
    if (got < static_cast<ssize_t>(sizeof(fanotify_event_metadata))) {
      return {};
    }
    const auto* event = reinterpret_cast<const fanotify_event_metadata*>(room.data());
    const auto path = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(event->fd));
    ::close(event->fd);
    return path.filename().string() + " " + std::to_string(event->mask);
  };
  CHECK_EQ(next(), "");
  touch(directory + "/quiet");
  CHECK_EQ(next(), "");
  touch(directory + "/loud");
  CHECK_EQ(next(), "loud " + std::to_string(FAN_MODIFY));
  touch(scratch("file"));
  CHECK_EQ(next(), "file " + std::to_string(FAN_MODIFY));
}

LIVE_TEST("watches: fanotify on a mount and a filesystem, reporting handles") {
  const int mounts = ::fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY | O_LARGEFILE);
  const int handles = ::fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK, O_RDONLY);
  if (mounts < 0 || handles < 0) {
    skip("no fanotify");
  }
  const ShmDirectory shm;
  REQUIRE(::fanotify_mark(mounts, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_CLOSE_WRITE, AT_FDCWD, "/dev/shm") == 0);
  REQUIRE(::fanotify_mark(handles, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_CREATE | FAN_ONDIR, AT_FDCWD, "/dev/shm") ==
          0);
  checkpoint_here();
  std::array<char, 4096> room{};
  while (::read(mounts, room.data(), room.size()) > 0) {
  }
  while (::read(handles, room.data(), room.size()) > 0) {
  }
  touch(shm.path() + "/x");
  const auto expect = [&](int fd, std::uint64_t mask) {
    fanotify_event_metadata event{};
    CHECK(::read(fd, room.data(), room.size()) >= static_cast<ssize_t>(sizeof event));
    std::memcpy(&event, room.data(), sizeof event);
    CHECK_EQ(event.mask, mask);
    CHECK_EQ(event.pid, ::getpid());
  };
  expect(mounts, FAN_CLOSE_WRITE);
  expect(handles, FAN_CREATE);
}

LIVE_TEST("watches: fanotify that decides on opening") {
  const int fd = ::fanotify_init(FAN_CLASS_CONTENT | FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY);
  if (fd < 0) {
    skip("no fanotify");
  }
  touch(scratch("guarded"));
  if (::fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, scratch("guarded").c_str()) != 0) {
    skip("no permission events");
  }
  Child child([] {
    checkpoint_here();
    CHECK_EQ(::open(scratch("guarded").c_str(), O_RDONLY), -1);
    CHECK_EQ(errno, EPERM);
  });
  checkpoint_here();
  fanotify_event_metadata event{};
  CHECK_EQ(::read(fd, &event, sizeof event), -1);
  ::kill(child.pid(), SIGUSR1);
  await([&] { return ::read(fd, &event, sizeof event) == static_cast<ssize_t>(sizeof event); }, "a question comes");
  CHECK_EQ(event.mask, static_cast<std::uint64_t>(FAN_OPEN_PERM));
  CHECK_EQ(event.pid, child.pid());
  const fanotify_response no{event.fd, FAN_DENY};
  CHECK_EQ(::write(fd, &no, sizeof no), static_cast<ssize_t>(sizeof no));
  CHECK_EQ(child.join(), 0);
}

LIVE_TEST("watches: a mount that is gone at the restore",
          {.restore_fails = "nothing is mounted on", .tamper = [](const std::string& images) {
             // The path in the image leads to a directory that is none: of the same length.
             const auto path = images + "/files.img";
             auto text = read_text(path);
             for (auto at = text.find("/dev/shm"); at != std::string::npos; at = text.find("/dev/shm", at)) {
               text.replace(at, 8, "/usr/lib");
             }
             std::ofstream(path, std::ios::binary) << text;
           }}) {
  const int fd = ::fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY);
  if (fd < 0 || ::fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_CLOSE_WRITE, AT_FDCWD, "/dev/shm") != 0) {
    skip("no fanotify");
  }
  checkpoint_here();
}

// ---- layers

namespace {

// An overlay filesystem, for as long as this lives.
class Overlay {
 public:
  Overlay() : base_("/dev/shm/criu-live-overlay") {
    for (const char* name : {"", "/lower", "/upper", "/work", "/merged"}) {
      REQUIRE(::mkdir((base_ + name).c_str(), 0755) == 0);
    }
    ::mkdir((base_ + "/lower/deep").c_str(), 0755);
    std::ofstream(base_ + "/lower/old") << "from below";
    std::ofstream(base_ + "/lower/deep/file") << "deep";
    const auto options = "lowerdir=" + base_ + "/lower,upperdir=" + base_ + "/upper,workdir=" + base_ + "/work";
    mounted_ = ::mount("overlay", path().c_str(), "overlay", 0, options.c_str()) == 0;
  }
  ~Overlay() {
    if (mounted_) {
      ::umount2(path().c_str(), MNT_DETACH);
    }
    std::error_code ignored;
    std::filesystem::remove_all(base_, ignored);
  }
  Overlay(const Overlay&) = delete;
  Overlay& operator=(const Overlay&) = delete;
  bool mounted() const { return mounted_; }
  std::string path() const { return base_ + "/merged"; }

 private:
  std::string base_;
  bool mounted_ = false;
};

}  // namespace

LIVE_TEST("watches: on an overlay, which has no handles, with files open and mapped",
          {.dump = {"--irmap-scan-path", "/dev/shm/criu-live-overlay/merged"}}) {
  const Overlay overlay;
  if (!overlay.mounted()) {
    skip("no overlay filesystems");
  }
  const int fd = make_inotify();
  const int root = watch(fd, overlay.path(), IN_CREATE);
  const int deep = watch(fd, overlay.path() + "/deep", IN_CREATE);
  const int file = watch(fd, overlay.path() + "/old", IN_ATTRIB);
  const int open = ::open((overlay.path() + "/old").c_str(), O_RDONLY);
  REQUIRE(open >= 0);
  const auto* mapped = static_cast<const char*>(::mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, open, 0));
  REQUIRE(mapped != MAP_FAILED);
  checkpoint_here();
  CHECK_EQ(events(fd), "");
  touch(overlay.path() + "/new");
  CHECK_EQ(events(fd), told(root, IN_CREATE, "new"));
  touch(overlay.path() + "/deep/new");
  CHECK_EQ(events(fd), told(deep, IN_CREATE, "new"));
  CHECK_EQ(::chmod((overlay.path() + "/old").c_str(), 0600), 0);
  CHECK(events(fd).find(told(file, IN_ATTRIB)) == 0);
  CHECK_EQ(std::string(mapped, 10), "from below");
  char text[4] = {};
  CHECK_EQ(::read(open, text, 4), 4);
  CHECK_EQ(std::string(text, 4), "from");
}
