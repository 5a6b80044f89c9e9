// SPDX-License-Identifier: GPL-2.0-only
// Descriptors of processes, namespaces and files of /proc; of BPF maps; and what is refused beside them.
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "harness/live.hpp"

using namespace live;

namespace {

int pidfd_open(pid_t pid, unsigned flags = 0) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, flags)); }

bool readable(int fd) {
  pollfd event{fd, POLLIN, 0};
  return ::poll(&event, 1, 0) == 1;
}

std::string link_of(int fd) {
  std::array<char, PATH_MAX> text{};
  const auto size = ::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), text.data(), text.size());
  return size < 0 ? std::string() : std::string(text.data(), static_cast<std::size_t>(size));
}

std::uint64_t inode(int fd) {
  struct stat st {};
  REQUIRE(::fstat(fd, &st) == 0);
  return st.st_ino;
}

// A process that has ended and been waited for, in the way that `end` does.
pid_t gone(const std::function<void()>& end, std::vector<int>* pidfds = nullptr) {
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    end();
    ::_exit(0);
  }
  if (pidfds != nullptr) {
    for (auto& fd : *pidfds) {
      fd = pidfd_open(pid);
      REQUIRE(fd >= 0);
    }
  }
  REQUIRE(::waitpid(pid, nullptr, 0) == pid);
  return pid;
}

// How the process of a pidfd ended; -1 where the kernel does not tell.
int end_of(int fd) {
  struct {
    std::uint64_t mask, cgroup;
    std::uint32_t ids[11];
    std::int32_t exit_code;
  } info{};
  info.mask = 8;
  return ::ioctl(fd, _IOWR(0xff, 11, info), &info) == 0 && (info.mask & 8) != 0 ? info.exit_code : -1;
}

std::string rest_of(int fd) {
  std::string text;
  std::array<char, 4096> room{};
  for (;;) {
    const auto got = ::read(fd, room.data(), room.size());
    if (got <= 0) {
      return text;
    }
    text.append(room.data(), static_cast<std::size_t>(got));
  }
}

int bpf(int command, bpf_attr& attr) { return static_cast<int>(::syscall(SYS_bpf, command, &attr, sizeof attr)); }

int make_map(std::uint32_t type, std::uint32_t value_size, std::uint32_t entries, std::uint32_t flags = 0) {
  bpf_attr attr;
  std::memset(&attr, 0, sizeof attr);
  attr.map_type = type;
  attr.key_size = 4;
  attr.value_size = value_size;
  attr.max_entries = entries;
  attr.map_flags = flags;
  std::strcpy(attr.map_name, "live");
  const int fd = bpf(BPF_MAP_CREATE, attr);
  if (fd < 0) {
    skip("no BPF maps");
  }
  return fd;
}

bool put(int map, std::uint32_t key, std::uint64_t value) {
  bpf_attr attr;
  std::memset(&attr, 0, sizeof attr);
  attr.map_fd = static_cast<std::uint32_t>(map);
  attr.key = reinterpret_cast<std::uint64_t>(&key);
  attr.value = reinterpret_cast<std::uint64_t>(&value);
  return bpf(BPF_MAP_UPDATE_ELEM, attr) == 0;
}

// All ones: not there.
std::uint64_t get(int map, std::uint32_t key) {
  std::uint64_t value = 0;
  bpf_attr attr;
  std::memset(&attr, 0, sizeof attr);
  attr.map_fd = static_cast<std::uint32_t>(map);
  attr.key = reinterpret_cast<std::uint64_t>(&key);
  attr.value = reinterpret_cast<std::uint64_t>(&value);
  return bpf(BPF_MAP_LOOKUP_ELEM, attr) == 0 ? value : ~std::uint64_t{0};
}

}  // namespace

// ---- pidfds

LIVE_TEST("pidfds: of live tasks, oneself, a zombie, shared and watched") {
  Child child([] { checkpoint_here(); });
  const pid_t dead = ::fork();
  REQUIRE(dead >= 0);
  if (dead == 0) {
    ::_exit(7);
  }
  siginfo_t info{};
  REQUIRE(::waitid(P_PID, static_cast<id_t>(dead), &info, WEXITED | WNOWAIT) == 0);
  const int of_child = pidfd_open(child.pid(), O_NONBLOCK);
  const int twin = ::dup(of_child);
  const int again = pidfd_open(child.pid());
  const int self = pidfd_open(::getpid());
  const int zombie = pidfd_open(dead);
  const int epoll = ::epoll_create1(0);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 3;
  REQUIRE(of_child >= 0 && twin >= 0 && again >= 0 && self >= 0 && zombie >= 0);
  REQUIRE(epoll >= 0 && ::epoll_ctl(epoll, EPOLL_CTL_ADD, of_child, &event) == 0);
  checkpoint_here();
  CHECK(!readable(of_child) && !readable(self) && readable(zombie));
  CHECK_EQ(inode(of_child), inode(again));
  CHECK_EQ(::syscall(SYS_pidfd_send_signal, self, 0, nullptr, 0), 0);
  CHECK_EQ(::fcntl(of_child, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  CHECK_EQ(::waitid(static_cast<idtype_t>(3), static_cast<id_t>(zombie), &info, WEXITED), 0);  // P_PIDFD
  CHECK_EQ(info.si_status, 7);
  CHECK_EQ(::epoll_wait(epoll, &event, 1, 0), 0);
  CHECK_EQ(::syscall(SYS_pidfd_send_signal, twin, SIGUSR1, nullptr, 0), 0);
  CHECK_EQ(child.join(), 0);
  CHECK_EQ(::epoll_wait(epoll, &event, 1, 0), 1);
  CHECK_EQ(event.data.u64, 3U);
}

LIVE_TEST("pidfds: of processes that are gone, and how they ended") {
  std::vector<int> exited(3), killed(1);
  gone([] { ::_exit(42); }, &exited);
  gone([] { ::raise(SIGTERM); }, &killed);
  const bool told = end_of(exited[0]) != -1;
  const bool pidfs = inode(exited[0]) != inode(killed[0]);
  checkpoint_here();
  for (const int fd : exited) {
    CHECK(readable(fd));
    CHECK_EQ(::syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0), -1);
    CHECK_EQ(errno, ESRCH);
    CHECK_EQ(inode(fd), inode(exited[0]));
    if (told) {
      CHECK_EQ(end_of(fd), 42 << 8);
    }
  }
  if (pidfs) {
    CHECK(inode(exited[0]) != inode(killed[0]));
  }
  if (told) {
    CHECK_EQ(end_of(killed[0]), SIGTERM);
  }
  // Nobody heard of the stand-ins.
  sigset_t pending;
  ::sigpending(&pending);
  CHECK(!::sigismember(&pending, SIGCHLD));
  CHECK_EQ(::waitpid(-1, nullptr, WNOHANG | 0x40000000), -1);  // __WALL
}

LIVE_TEST("pidfds: of a process outside of the tree",
          {.not_contained = true, .dump_fails = "which is not in the tree"}) {
  const int fd = pidfd_open(::getppid());
  REQUIRE(fd >= 0);
  checkpoint_here();
  CHECK_EQ(::syscall(SYS_pidfd_send_signal, fd, 0, nullptr, 0), 0);
}

LIVE_TEST("pidfds: of a further thread", {.dump_fails = "which is not the first of a process of the tree"}) {
  const int wake = ::eventfd(0, 0);
  pid_t tid = 0;
  const int ready = ::eventfd(0, 0);
  std::thread thread([&] {
    tid = ::gettid();
    const std::uint64_t one = 1;
    REQUIRE(::write(ready, &one, sizeof one) == 8);
    std::uint64_t value = 0;
    REQUIRE(::read(wake, &value, sizeof value) == 8);
  });
  std::uint64_t value = 0;
  REQUIRE(::read(ready, &value, sizeof value) == 8);
  if (pidfd_open(tid, O_EXCL) < 0) {
    const std::uint64_t one = 1;
    REQUIRE(::write(wake, &one, sizeof one) == 8);
    thread.join();
    skip("no pidfds of threads");
  }
  checkpoint_here();
  const std::uint64_t one = 1;
  REQUIRE(::write(wake, &one, sizeof one) == 8);
  thread.join();
}

// ---- namespaces

LIVE_TEST("namespaces: descriptors of the own ones", {.ignore = {"fd"}}) {
  std::vector<std::pair<std::string, int>> held;
  for (const char* name : {"mnt", "net", "pid", "user", "uts", "ipc", "cgroup", "pid_for_children"}) {
    const int fd = ::open((std::string("/proc/self/ns/") + name).c_str(), O_RDONLY);
    REQUIRE(fd >= 0);
    held.emplace_back(name, fd);
  }
  const int time = ::open("/proc/self/ns/time", O_RDONLY);
  const int path = ::open("/proc/self/ns/uts", O_PATH);
  REQUIRE(time >= 0 && path >= 0);
  checkpoint_here();
  // A namespace that the tree has for itself is another one then, with the tree in it.
  const auto own = [](const std::string& name) {
    return std::filesystem::read_symlink("/proc/self/ns/" + name).string();
  };
  for (const auto& [name, fd] : held) {
    CHECK_EQ(link_of(fd), own(name));
  }
  struct stat mine {};
  CHECK_EQ(::stat("/proc/self/ns/time", &mine), 0);
  CHECK_EQ(inode(time), mine.st_ino);
  CHECK_EQ(::setns(held[4].second, CLONE_NEWUTS), 0);
  CHECK_EQ(link_of(path), own("uts"));
}

LIVE_TEST("namespaces: a descriptor of one that nobody lives in",
          {.dump_fails = "is a namespace that no task of the tree lives in"}) {
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::_exit(::unshare(CLONE_NEWUTS) == 0 && ::pause() == 0 ? 0 : 1);
  }
  await_syscall(pid, SYS_pause);
  const int fd = ::open(("/proc/" + std::to_string(pid) + "/ns/uts").c_str(), O_RDONLY);
  REQUIRE(fd >= 0 && ::kill(pid, SIGKILL) == 0 && ::waitpid(pid, nullptr, 0) == pid);
  checkpoint_here();
  CHECK_EQ(::setns(fd, CLONE_NEWUTS), 0);
}

// ---- /proc

LIVE_TEST("proc files: of oneself and a child, half read") {
  const int status = ::open("/proc/self/status", O_RDONLY);
  const int maps = ::open("/proc/self/maps", O_RDONLY);
  const int directory = ::open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
  const int memory = ::open("/proc/self/mem", O_RDWR);
  const int global = ::open("/proc/sys/kernel/ostype", O_RDONLY);
  Child child([] { checkpoint_here(); });
  const int other = ::open(("/proc/" + std::to_string(child.pid()) + "/oom_score_adj").c_str(), O_RDWR);
  REQUIRE(status >= 0 && maps >= 0 && directory >= 0 && memory >= 0 && global >= 0 && other >= 0);
  std::array<char, 6> head{};
  REQUIRE(::read(status, head.data(), 6) == 6 && ::read(global, head.data(), 3) == 3);
  const auto all = read_text("/proc/self/maps");
  const auto first_line = all.find('\n') + 1;
  std::string line(first_line, '\0');
  REQUIRE(::read(maps, line.data(), first_line) == static_cast<ssize_t>(first_line));
  static volatile int value = 5;
  REQUIRE(::lseek(memory, static_cast<off_t>(reinterpret_cast<std::uintptr_t>(&value)), SEEK_SET) > 0);
  checkpoint_here();
  // What is left of the maps begins where a line does, and is what is there now.
  const auto now = read_text("/proc/self/maps");
  CHECK_EQ(rest_of(maps), now.substr(now.find('\n') + 1));
  const auto name = status_field("Name");
  CHECK_EQ(rest_of(status).substr(0, name.size()), name);
  CHECK_EQ(rest_of(global), "ux\n");
  const int six = 6;
  CHECK_EQ(::write(memory, &six, sizeof six), static_cast<ssize_t>(sizeof six));
  CHECK_EQ(value, 6);
  CHECK_EQ(::write(other, "77", 2), 2);
  CHECK_EQ(read_text("/proc/" + std::to_string(child.pid()) + "/oom_score_adj"), "77\n");
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("proc files: of processes that are gone") {
  std::array<int, 3> files{};
  const pid_t pid = ::fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    ::pause();
  }
  const auto proc = "/proc/" + std::to_string(pid);
  files[0] = ::open((proc + "/status").c_str(), O_RDONLY);
  files[1] = ::open((proc + "/task/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY);
  files[2] = ::open(proc.c_str(), O_RDONLY | O_DIRECTORY);
  char head[5] = {};
  REQUIRE(files[0] >= 0 && files[1] >= 0 && files[2] >= 0 && ::read(files[0], head, 5) == 5);
  REQUIRE(::kill(pid, SIGKILL) == 0 && ::waitpid(pid, nullptr, 0) == pid);
  checkpoint_here();
  for (const int fd : files) {
    CHECK_EQ(link_of(fd).substr(0, proc.size()), proc);
  }
  CHECK_EQ(::lseek(files[0], 0, SEEK_CUR), 5);
  CHECK_EQ(::pread(files[1], head, 1, 0), -1);
  CHECK_EQ(errno, ESRCH);
  CHECK_EQ(::openat(files[2], "status", O_RDONLY), -1);
  CHECK_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  CHECK_EQ(errno, ECHILD);
}

LIVE_TEST("proc files: of a gone process that had led a group which is still there") {
  // The leader of the group ends; its group, and so its number, lives on in a child.
  std::array<int, 2> ends{};
  REQUIRE(::pipe(ends.data()) == 0);
  const pid_t leader = ::fork();
  REQUIRE(leader >= 0);
  if (leader == 0) {
    char go = 0;
    REQUIRE(::setpgid(0, 0) == 0 && ::read(ends[0], &go, 1) == 1);
    ::_exit(0);
  }
  await([&] { return ::getpgid(leader) == leader; }, "the leader leads");
  const auto path = "/proc/" + std::to_string(leader) + "/stat";
  Child child([&] {
    REQUIRE(::setpgid(0, leader) == 0);
    checkpoint_here();
    CHECK_EQ(::getpgrp(), leader);
  });
  const int fd = ::open(path.c_str(), O_RDONLY);
  REQUIRE(fd >= 0 && ::write(ends[1], "x", 1) == 1 && ::waitpid(leader, nullptr, 0) == leader);
  ::close(ends[0]);
  ::close(ends[1]);
  checkpoint_here();
  char byte = 0;
  CHECK_EQ(::read(fd, &byte, 1), -1);
  CHECK_EQ(errno, ESRCH);
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("proc files: of a further thread", {.dump_fails = "tells of a thread that is not the first of its process"}) {
  const int wake = ::eventfd(0, 0), ready = ::eventfd(0, 0);
  pid_t tid = 0;
  const std::uint64_t one = 1;
  std::uint64_t value = 0;
  std::thread thread([&] {
    tid = ::gettid();
    REQUIRE(::write(ready, &one, sizeof one) == 8 && ::read(wake, &value, sizeof value) == 8);
  });
  REQUIRE(::read(ready, &value, sizeof value) == 8);
  REQUIRE(::open(("/proc/self/task/" + std::to_string(tid) + "/stat").c_str(), O_RDONLY) >= 0);
  checkpoint_here();
  REQUIRE(::write(wake, &one, sizeof one) == 8);
  thread.join();
}

// ---- BPF

LIVE_TEST("bpf maps: a hash table, an array, several descriptors, frozen, by rights") {
  const int hash = make_map(BPF_MAP_TYPE_HASH, 8, 1000, BPF_F_NO_PREALLOC);
  const int array = make_map(BPF_MAP_TYPE_ARRAY, 8, 16);
  const int frozen = make_map(BPF_MAP_TYPE_ARRAY, 8, 4);
  const int empty = make_map(BPF_MAP_TYPE_HASH, 8, 4, BPF_F_RDONLY);
  for (std::uint32_t i = 0; i < 500; ++i) {
    REQUIRE(put(hash, i * 7, std::uint64_t{i} << 33));
  }
  REQUIRE(put(array, 3, 33) && put(array, 15, 99) && put(frozen, 1, 11));
  const int twin = ::dup(hash);
  bpf_attr attr;
  std::memset(&attr, 0, sizeof attr);
  attr.map_fd = static_cast<std::uint32_t>(frozen);
  REQUIRE(bpf(BPF_MAP_FREEZE, attr) == 0);
  // A second description of the same map, which can only read.
  bpf_map_info info{};
  std::memset(&attr, 0, sizeof attr);
  attr.info.bpf_fd = static_cast<std::uint32_t>(array);
  attr.info.info_len = sizeof info;
  attr.info.info = reinterpret_cast<std::uint64_t>(&info);
  REQUIRE(bpf(BPF_OBJ_GET_INFO_BY_FD, attr) == 0);
  std::memset(&attr, 0, sizeof attr);
  attr.map_id = info.id;
  attr.open_flags = BPF_F_RDONLY;
  const int reader = bpf(BPF_MAP_GET_FD_BY_ID, attr);
  REQUIRE(twin >= 0 && reader >= 0);
  checkpoint_here();
  for (std::uint32_t i = 0; i < 500; ++i) {
    if (get(hash, i * 7) != std::uint64_t{i} << 33) {
      CHECK_EQ(get(hash, i * 7), std::uint64_t{i} << 33);
      break;
    }
  }
  CHECK_EQ(get(hash, 1), ~std::uint64_t{0});
  CHECK(put(twin, 1, 5));
  CHECK_EQ(get(hash, 1), 5U);
  CHECK(put(array, 3, 34));
  CHECK_EQ(get(reader, 3), 34U);
  CHECK_EQ(get(array, 15), 99U);
  CHECK(!put(reader, 3, 1));
  CHECK(!put(frozen, 1, 12));
  CHECK_EQ(get(frozen, 1), 11U);
  CHECK(!put(empty, 1, 1));
  CHECK_EQ(errno, EPERM);
}

LIVE_TEST("bpf maps: of another type", {.dump_fails = "is of type 6; hash tables (1) and arrays (2) are"}) {
  const int map = make_map(BPF_MAP_TYPE_PERCPU_ARRAY, 8, 4);
  checkpoint_here();
  CHECK(map >= 0);
}

// ---- tunnels, and what is refused

LIVE_TEST("devices: a network tunnel that is not attached") {
  const int fd = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK);
  if (fd < 0) {
    skip("no /dev/net/tun");
  }
  checkpoint_here();
  char byte = 0;
  CHECK_EQ(::read(fd, &byte, 1), -1);
  CHECK_EQ(errno, EBADFD);
  unsigned features = 0;
  CHECK_EQ(::ioctl(fd, 0x800454cf, &features), 0);  // TUNGETFEATURES
}

LIVE_TEST("devices: the connection of a FUSE filesystem", {.dump_fails = "the connection of a FUSE filesystem"}) {
  if (::open("/dev/fuse", O_RDWR) < 0) {
    skip("no /dev/fuse");
  }
  checkpoint_here();
}

LIVE_TEST("refused: a perf event", {.dump_fails = "is a perf event"}) {
  perf_event_attr attr{};
  attr.type = PERF_TYPE_SOFTWARE;
  attr.size = sizeof attr;
  attr.config = PERF_COUNT_SW_CPU_CLOCK;
  if (::syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0) < 0) {
    skip("no perf events");
  }
  checkpoint_here();
}

LIVE_TEST("refused: a userfaultfd", {.dump_fails = "is a userfaultfd"}) {
  if (::syscall(SYS_userfaultfd, O_CLOEXEC) < 0) {
    skip("no userfaultfd");
  }
  checkpoint_here();
}

LIVE_TEST("refused: what an automounter reads", {.dump_fails = "is what the automounter of"}) {
  std::array<int, 2> ends{};
  const auto point = scratch("auto");
  REQUIRE(::pipe(ends.data()) == 0 && ::mkdir(point.c_str(), 0755) == 0);
  const auto options =
      "fd=" + std::to_string(ends[1]) + ",pgrp=" + std::to_string(::getpgrp()) + ",minproto=5,maxproto=5,direct";
  if (::mount("live", point.c_str(), "autofs", 0, options.c_str()) != 0) {
    skip("no autofs");
  }
  ::close(ends[1]);
  checkpoint_here();
  CHECK_EQ(::umount2(point.c_str(), MNT_DETACH), 0);
}

// ---- external files

LIVE_TEST("external: a file that the restore is not given",
          {.dump = {"--config", "/dev/shm/criu-live-external.conf"},
           .restore_fails = "--inherit-fd 'fd[N]:file[",
           .tamper = [](const std::string&) { ::unlink("/dev/shm/criu-live-external.conf"); }}) {
  // What a device has in it cannot be saved, but somebody may have another.
  const int fd = ::open("/dev/fuse", O_RDWR);
  if (fd < 0) {
    skip("no /dev/fuse");
  }
  struct statx info {};
  REQUIRE(::statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID | STATX_INO, &info) == 0);
  std::ofstream config("/dev/shm/criu-live-external.conf");
  config << std::hex << "external file[" << info.stx_mnt_id << ":" << info.stx_ino << "]\n";
  config.close();
  checkpoint_here();
}

// ---- clocks and memory

LIVE_TEST("timers: a timerfd for a moment of the day goes off at that moment, however long the tree was away") {
  const int once = ::timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
  const int daily = ::timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
  timespec now{};
  REQUIRE(once >= 0 && daily >= 0 && ::clock_gettime(CLOCK_REALTIME, &now) == 0);
  const itimerspec moment{{0, 0}, {now.tv_sec + 3600, 500}};
  const itimerspec repeated{{86400, 0}, {now.tv_sec + 7200, 0}};
  REQUIRE(::timerfd_settime(once, TFD_TIMER_ABSTIME, &moment, nullptr) == 0);
  REQUIRE(::timerfd_settime(daily, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &repeated, nullptr) == 0);
  checkpoint_here();
  // The clock is read right before and after, so the moment lies between two sums.
  for (const auto& [fd, wanted] : {std::pair{once, moment}, std::pair{daily, repeated}}) {
    timespec before{}, after{};
    itimerspec left{};
    const auto sum = [&](const timespec& at) {
      return (at.tv_sec + left.it_value.tv_sec) * 1000000000L + at.tv_nsec + left.it_value.tv_nsec;
    };
    CHECK_EQ(::clock_gettime(CLOCK_REALTIME, &before), 0);
    CHECK_EQ(::timerfd_gettime(fd, &left), 0);
    CHECK_EQ(::clock_gettime(CLOCK_REALTIME, &after), 0);
    const auto at = wanted.it_value.tv_sec * 1000000000L + wanted.it_value.tv_nsec;
    constexpr long slack = 20000000;  // the dump reads two things one after the other
    CHECK(sum(before) <= at + slack);
    CHECK(sum(after) >= at - slack);
    CHECK_EQ(left.it_interval.tv_sec, wanted.it_interval.tv_sec);
  }
}

LIVE_TEST("memory files: opened again through /proc with other rights") {
  const int fd = ::memfd_create("live again", MFD_ALLOW_SEALING);
  REQUIRE(fd >= 0 && ::write(fd, "contents", 8) == 8);
  const auto path = "/proc/self/fd/" + std::to_string(fd);
  const int reader = ::open(path.c_str(), O_RDONLY);
  const int writer = ::open(path.c_str(), O_WRONLY | O_APPEND);
  const int reference = ::open(path.c_str(), O_PATH);
  REQUIRE(reader >= 0 && writer >= 0 && reference >= 0 && ::lseek(reader, 3, SEEK_SET) == 3);
  const auto* view = static_cast<const char*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, reader, 0));
  REQUIRE(view != MAP_FAILED);
  checkpoint_here();
  char text[8] = {};
  CHECK_EQ(::read(reader, text, 5), 5);
  CHECK_EQ(std::string(text), "tents");
  CHECK_EQ(::write(reader, "x", 1), -1);
  CHECK_EQ(::write(writer, "!", 1), 1);
  CHECK_EQ(std::string(view, 9), "contents!");
  CHECK_EQ(inode(reader), inode(fd));
  CHECK_EQ(inode(reference), inode(fd));
  CHECK_EQ(::fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
  CHECK_EQ(::write(writer, "?", 1), -1);
}

LIVE_TEST("memory files: of huge pages") {
  const int fd = ::memfd_create("huge", MFD_HUGETLB);
  constexpr std::size_t size = 2 << 20;  // the usual one on x86-64
  if (fd < 0 || ::ftruncate(fd, size) != 0) {
    skip("no huge pages");
  }
  auto* at = static_cast<char*>(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  if (at == MAP_FAILED) {
    skip("no huge pages are free");
  }
  at[4096] = 'h';
  checkpoint_here();
  CHECK_EQ(at[4096], 'h');
  struct stat st {};
  CHECK_EQ(::fstat(fd, &st), 0);
  CHECK_EQ(st.st_blksize, static_cast<blksize_t>(size));
}
