// SPDX-License-Identifier: GPL-2.0-only
// Control groups of a tree. That each task and thread is in the group that it was in is compared by the harness; the
// tests make groups, go into them, and look at what they are like. Groups are reached through mounts that are nowhere,
// so that it does not matter what is mounted where a test runs.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.hpp"
#include "harness/live.hpp"

using namespace live;
namespace fs = std::filesystem;

namespace {

// The root of a hierarchy: "" is version 2.
base::Fd root_of(const std::string& controller) {
  const base::Fd context(::fsopen(controller.empty() ? "cgroup2" : "cgroup", FSOPEN_CLOEXEC));
  if (!context ||
      (!controller.empty() && ::fsconfig(context.get(), FSCONFIG_SET_FLAG, controller.c_str(), nullptr, 0) != 0)) {
    return {};
  }
  ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0);
  const base::Fd mount(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  return base::Fd(mount ? ::openat(mount.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1);
}

std::string group_of(const std::string& controller, pid_t tid = 0) {
  const auto text = read_text(tid == 0 ? "/proc/self/cgroup" : "/proc/self/task/" + std::to_string(tid) + "/cgroup");
  const auto at = text.find(":" + controller + ":");
  return at == std::string::npos
             ? ""
             : text.substr(at + controller.size() + 2, text.find('\n', at) - at - controller.size() - 2);
}

// Of this test, wherever it looks from.
std::string name_in(const fs::path& directory) {
  return "criu-live-" + std::to_string(std::hash<std::string>()(directory.string()));
}
std::string own_name() { return name_in(fs::path(scratch("x")).parent_path()); }

// Groups of a hierarchy, below one of this test's own.
class Groups {
 public:
  explicit Groups(const std::string& controller) : controller_(controller), before_(group_of(controller)) {
    if (before_.empty()) {
      skip("there are no control groups of " + controller + " here");
    }
    root_ = root_of(controller);
    if (!root_ && in_user_namespace()) {
      skip("in a user namespace nobody may mount control groups that are not its own");
    }
    REQUIRE(root_);
    make("");
  }
  std::string path(const std::string& below) const { return own_name() + (below.empty() ? "" : "/" + below); }
  void make(const std::string& below) { REQUIRE(::mkdirat(root_.get(), path(below).c_str(), 0755) == 0); }
  bool is_there(const std::string& below) const { return ::faccessat(root_.get(), path(below).c_str(), F_OK, 0) == 0; }
  void remove(const std::string& below) { CHECK_EQ(::unlinkat(root_.get(), path(below).c_str(), AT_REMOVEDIR), 0); }
  void put(const std::string& file, const std::string& value, bool in_root = false) const {
    const base::Fd fd(::openat(root_.get(), (in_root ? file : path(file)).c_str(), O_WRONLY | O_CLOEXEC));
    REQUIRE(fd);
    REQUIRE(::write(fd.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size()));
  }
  std::string get(const std::string& file) const {
    const base::Fd fd(::openat(root_.get(), path(file).c_str(), O_RDONLY | O_CLOEXEC));
    char text[256];
    const auto got = ::read(fd.get(), text, sizeof text);
    return got > 0 ? std::string(text, static_cast<std::size_t>(got) - 1) : "";
  }
  void enter(const std::string& below) const { put((below.empty() ? "" : below + "/") + "cgroup.procs", "0"); }
  void leave() const { put(before_.substr(1) + (before_ == "/" ? "" : "/") + "cgroup.procs", "0", true); }
  bool is_in(const std::string& below, pid_t tid = 0) const { return group_of(controller_, tid) == "/" + path(below); }
  // Nothing that is not the tree's stays open.
  void close() { root_.reset(); }
  void open() { root_ = root_of(controller_); }

 private:
  std::string controller_, before_;
  base::Fd root_;
};

// Between dump and restore: the groups are gone.
void remove_tree(int root, const std::string& path) {
  const base::Fd group(::openat(root, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!group) {
    return;
  }
  for (const auto& entry : fs::directory_iterator("/proc/self/fd/" + std::to_string(group.get()))) {
    if (entry.is_directory()) {
      remove_tree(root, path + "/" + entry.path().filename().string());
    }
  }
  if (::unlinkat(root, path.c_str(), AT_REMOVEDIR) != 0) {
    throw std::runtime_error("cannot remove group " + path + ": " + last_error());
  }
}

void remove_groups(const std::string& images) {
  const auto name = name_in(fs::path(images).parent_path());
  for (const char* controller : {"", "pids", "cpu", "freezer", "cpuset", "memory"}) {
    if (const auto root = root_of(controller)) {
      remove_tree(root.get(), name);
    }
  }
}

const Options groups_go{.tamper = remove_groups};

// A thread that can be told to end.
class Other {
 public:
  Other()
      : thread_([this] {
          tid_ = static_cast<pid_t>(::syscall(SYS_gettid));
          go_.wait(false);
        }) {
    await([this] { return tid_ != 0; }, "a thread");
    await_syscall(tid_, SYS_futex);
  }
  ~Other() {
    go_ = true;
    go_.notify_all();
    thread_.join();
  }
  pid_t tid() const { return tid_; }

 private:
  std::atomic<pid_t> tid_ = 0;
  std::atomic<bool> go_ = false;
  std::thread thread_;
};

}  // namespace

LIVE_TEST("cgroup: limits of version 1, in groups that are gone", groups_go) {
  Groups pids("pids");
  pids.put("pids.max", "77");
  pids.enter("");
  pids.close();
  checkpoint_here();
  pids.open();
  CHECK(pids.is_in(""));
  CHECK_EQ(pids.get("pids.max"), "77");
  pids.leave();
  pids.remove("");
}

LIVE_TEST("cgroup: a processor weight and processors of version 1", groups_go) {
  Groups cpu("cpu"), cpuset("cpuset");
  cpu.put("cpu.shares", "512");
  cpu.put("cpu.cfs_quota_us", "90000");
  cpuset.put("cpuset.cpus", "0");
  cpuset.put("cpuset.mems", "0");
  cpu.enter("");
  cpuset.enter("");
  cpu.close();
  cpuset.close();
  checkpoint_here();
  cpu.open();
  cpuset.open();
  CHECK_EQ(cpu.get("cpu.shares"), "512");
  CHECK_EQ(cpu.get("cpu.cfs_quota_us"), "90000");
  CHECK_EQ(cpuset.get("cpuset.cpus"), "0");
  cpu.leave();
  cpuset.leave();
  cpu.remove("");
  cpuset.remove("");
}

LIVE_TEST("cgroup: groups that are there", Options{}) {
  Groups pids("pids"), unified("");
  pids.enter("");
  unified.enter("");
  pids.close();
  unified.close();
  checkpoint_here();
  pids.open();
  unified.open();
  CHECK(pids.is_in("") && unified.is_in(""));
  pids.leave();
  unified.leave();
  pids.remove("");
  unified.remove("");
}

LIVE_TEST("cgroup: a child in other groups than its parent, and a grandchild back in those", groups_go) {
  Groups pids("pids"), unified("");
  pids.make("child");
  unified.make("child");
  pids.enter("");
  pids.put("child/pids.max", "50");
  const auto check = [&](const std::string& below) { CHECK(pids.is_in(below)); };
  Child child([&] {
    pids.enter("child");
    unified.enter("child");
    Child grandchild([&] {
      pids.enter("");
      unified.leave();
      pids.close();
      unified.close();
      checkpoint_here();
      check("");
      CHECK(!unified.is_in("child"));
    });
    pids.close();
    unified.close();
    checkpoint_here();
    check("child");
    CHECK(unified.is_in("child"));
    CHECK_EQ(grandchild.finish(), 0);
  });
  pids.close();
  unified.close();
  checkpoint_here();
  pids.open();
  unified.open();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(pids.get("child/pids.max"), "50");
  pids.leave();
  pids.remove("child");
  pids.remove("");
  unified.remove("child");
  unified.remove("");
}

LIVE_TEST("cgroup: threads in groups of version 1", groups_go) {
  Groups pids("pids");
  pids.make("thread");
  pids.enter("");
  Other other, stays;
  pids.put("thread/tasks", std::to_string(other.tid()));
  pids.close();
  checkpoint_here();
  pids.open();
  CHECK(pids.is_in("") && pids.is_in("", stays.tid()));
  CHECK(pids.is_in("thread", other.tid()));
  pids.put("tasks", std::to_string(other.tid()));
  pids.leave();
  pids.remove("thread");
  pids.remove("");
}

LIVE_TEST("cgroup: threads in threaded groups of version 2", groups_go) {
  Groups unified("");
  for (const std::string below : {"first", "second"}) {
    unified.make(below);
    unified.put(below + "/cgroup.type", "threaded");
  }
  unified.enter("");
  Other other;
  unified.put("first/cgroup.threads", std::to_string(::gettid()));
  unified.put("second/cgroup.threads", std::to_string(other.tid()));
  unified.close();
  checkpoint_here();
  unified.open();
  CHECK(unified.is_in("first", ::gettid()));
  CHECK(unified.is_in("second", other.tid()));
  CHECK_EQ(unified.get("second/cgroup.type"), "threaded");
  unified.leave();
  unified.remove("first");
  unified.remove("second");
  unified.remove("");
}

namespace {

// The namespace of who has started the tree.
std::string above_of(pid_t pid) { return "/proc/" + status_field("PPid", pid) + "/ns/cgroup"; }

}  // namespace

LIVE_TEST("cgroup: a namespace", Options{.not_contained = true, .tamper = remove_groups}) {
  Groups pids("pids"), unified("");
  pids.make("below");
  pids.enter("");
  unified.enter("");
  REQUIRE(::unshare(CLONE_NEWCGROUP) == 0);
  pids.enter("below");
  pids.close();
  unified.close();
  REQUIRE(group_of("pids") == "/below" && group_of("") == "/");
  checkpoint_here();
  CHECK_EQ(group_of("pids"), "/below");
  CHECK_EQ(group_of(""), "/");
  // Its root is where it was: nothing leads above, and what is mounted now shows what is below.
  const auto root = root_of("pids");
  CHECK(::faccessat(root.get(), "below/pids.max", F_OK, 0) == 0);
  // The groups go once this process is in none of them; it cannot leave them from inside of the namespace.
  const auto clean_up = ::fork();
  REQUIRE(clean_up >= 0);
  if (clean_up == 0) {
    ::setsid();
    const auto parent = ::getppid();
    const base::Fd host(::open(above_of(parent).c_str(), O_RDONLY | O_CLOEXEC));
    if (!host || ::setns(host.get(), CLONE_NEWCGROUP) != 0) {
      ::_exit(1);
    }
    pids.open();
    unified.open();
    for (const auto pid : {parent, ::getpid()}) {
      pids.put("cgroup.procs", std::to_string(pid), true);
      unified.put("cgroup.procs", std::to_string(pid), true);
    }
    pids.remove("below");
    pids.remove("");
    unified.remove("");
    ::_exit(0);
  }
  int status = -1;
  CHECK(::waitpid(clean_up, &status, 0) == clean_up && status == 0);
}

LIVE_TEST("cgroup: a namespace that the rest of the tree is not in", Options{.dump_fails = "control group"}) {
  Groups pids("pids");
  Child child([&] {
    pids.enter("");
    REQUIRE(::unshare(CLONE_NEWCGROUP) == 0);
    pids.close();
    checkpoint_here();
    CHECK_EQ(group_of("pids"), "/");
  });
  pids.close();
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  pids.open();
  pids.remove("");
}
