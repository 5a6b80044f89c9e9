// SPDX-License-Identifier: GPL-2.0-only
#include "container.hpp"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/fd.hpp"
#include "live.hpp"

namespace live {

namespace {

constexpr unsigned long harmless = MS_NOSUID | MS_NODEV | MS_NOEXEC;

base::Fd clone_of(const char* path) {
  return base::Fd(::open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
}

bool attach(const base::Fd& tree, const char* point) {
  return ::move_mount(tree.get(), "", AT_FDCWD, point, MOVE_MOUNT_F_EMPTY_PATH) == 0;
}

bool bind(const char* from, const char* point) { return attach(clone_of(from), point); }

bool set(const char* point, std::uint64_t attributes) {
  mount_attr attr{};
  attr.attr_set = attributes;
  return ::mount_setattr(AT_FDCWD, point, 0, &attr, sizeof attr) == 0;
}

// The root directory without what is mounted below it.
bool make_root() {
  const auto root = clone_of("/");
  return attach(root, "/") && ::fchdir(root.get()) == 0 && ::syscall(SYS_pivot_root, ".", ".") == 0 &&
         ::umount2(".", MNT_DETACH) == 0 && ::chdir("/") == 0;
}

bool make_devices() {
  constexpr struct {
    const char* path;
    unsigned major, minor;
  } devices[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
                 {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};
  return std::all_of(std::begin(devices), std::end(devices), [](const auto& device) {
    return ::mknod(device.path, S_IFCHR | 0666, makedev(device.major, device.minor)) == 0 &&
           ::chmod(device.path, 0666) == 0;
  });
}

bool make_dev() {
  return ::mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k") == 0 && make_devices() &&
         ::symlink("/proc/self/fd", "/dev/fd") == 0 && ::symlink("pts/ptmx", "/dev/ptmx") == 0 &&
         ::mkdir("/dev/pts", 0755) == 0 && ::mkdir("/dev/shm", 0755) == 0 && ::mkdir("/dev/mqueue", 0755) == 0 &&
         ::mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5") ==
             0 &&
         ::mount("shm", "/dev/shm", "tmpfs", harmless, "mode=1777,size=65536k") == 0 &&
         ::mount("mqueue", "/dev/mqueue", "mqueue", harmless, nullptr) == 0;
}

bool restrict_proc() {
  return bind("/proc/sys", "/proc/sys") && set("/proc/sys", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID) &&
         bind("/dev/null", "/proc/interrupts") && ::mount("tmpfs", "/proc/irq", "tmpfs", MS_RDONLY, "size=0k") == 0;
}

// A pair of mounts that hear of each other, and one that hears of them.
bool share() {
  return ::mount(nullptr, "/dev/shm", nullptr, MS_SHARED, nullptr) == 0 && ::mkdir("/dev/shared", 0755) == 0 &&
         bind("/dev/shm", "/dev/shared") && ::mkdir("/dev/heard", 0755) == 0 && bind("/dev/shm", "/dev/heard") &&
         ::mount(nullptr, "/dev/heard", nullptr, MS_SLAVE, nullptr) == 0 &&
         ::mount(nullptr, "/sys", nullptr, MS_UNBINDABLE, nullptr) == 0;
}

// Commands of ip, one a line, some of them for the side of the bridge.
bool run_ip(const std::string& commands, const std::string& where = {}) {
  const auto enter = where.empty() ? std::string() : "nsenter --net=" + where + " ";
  const auto all = "ip -batch - >/dev/null <<END\n" + commands + "END\n";
  return std::system((enter + all).c_str()) == 0;
}

bool fill_network(const std::string& outer) {
  return run_ip(
             "link set lo up\n"
             "link add eth0 index 7 type veth peer name live0\n"
             "link set live0 netns " +
             outer +
             "\n"
             "addr add " +
             std::string(container_address) +
             "/24 dev eth0\n"
             "link set eth0 up\n"
             "route add default via " +
             bridge_address + "\n") &&
         run_ip("link set live0 master livebr up\n", outer);
}

}  // namespace

Container::Container(const std::vector<std::string>& directories) : directories_(directories) {}

bool Container::make_bridge() {
  return run_ip("link set lo up\nlink add livebr type bridge\naddr add " + std::string(bridge_address) +
                "/24 dev livebr\nlink set livebr up\n");
}

// Here, as programs that ran in the container would take the first of its pids.
bool Container::make_network() {
  const base::Fd outer(::open("/proc/self/ns/net", O_RDONLY));
  if (!outer || ::unshare(CLONE_NEWNET) != 0) {
    return false;
  }
  network_.reset(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  const bool filled = fill_network("/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(outer.get()));
  return ::setns(outer.get(), CLONE_NEWNET) == 0 && filled;
}

bool Container::make() const {
  if (::setns(network_.get(), CLONE_NEWNET) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return false;
  }
  std::vector<base::Fd> given;
  for (const auto& directory : directories_) {
    given.push_back(clone_of(directory.c_str()));
  }
  bool made = make_root() && ::mount("proc", "/proc", "proc", harmless, nullptr) == 0 &&
              ::mount("sysfs", "/sys", "sysfs", harmless | MS_RDONLY, nullptr) == 0 && make_dev() && restrict_proc() &&
              share();
  for (std::size_t i = 0; made && i < given.size(); ++i) {
    made = attach(given[i], directories_[i].c_str());
  }
  return made;
}

std::vector<std::string> Container::dump_options() const {
  std::vector<std::string> options;
  for (std::size_t i = 0; i < directories_.size(); ++i) {
    options.insert(options.end(), {"--external", "mnt[" + directories_[i] + "]:given" + std::to_string(i)});
  }
  return options;
}

std::vector<std::string> Container::restore_options() const {
  std::vector<std::string> options{"--external", "veth[eth0]:live0@livebr"};
  for (std::size_t i = 0; i < directories_.size(); ++i) {
    options.insert(options.end(), {"--external", "mnt[given" + std::to_string(i) + "]:" + directories_[i]});
  }
  return options;
}

}  // namespace live
