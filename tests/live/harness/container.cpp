// SPDX-License-Identifier: GPL-2.0-only
#include "container.hpp"

#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
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

bool enter_root(const base::Fd& root) {
  return attach(root, "/") && ::fchdir(root.get()) == 0 && ::syscall(SYS_pivot_root, ".", ".") == 0 &&
         ::umount2(".", MNT_DETACH) == 0 && ::chdir("/") == 0;
}

// Not mounted anywhere yet. In a user namespace this works only as long as one of the host's is in sight.
base::Fd make_detached(const char* type, std::uint64_t attributes) {
  const base::Fd context(::fsopen(type, FSOPEN_CLOEXEC));
  if (!context || ::fsconfig(context.get(), FSCONFIG_SET_STRING, "source", type, 0) != 0 ||
      ::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) {
    return {};
  }
  return base::Fd(::fsmount(context.get(), FSMOUNT_CLOEXEC, static_cast<unsigned>(attributes)));
}

constexpr struct {
  const char* path;
  unsigned major, minor;
} devices[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
               {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};

bool make_device(const char* path, unsigned major, unsigned minor) {
  return ::mknod(path, S_IFCHR | 0666, makedev(major, minor)) == 0 && ::chmod(path, 0666) == 0;
}

bool bind_device(const base::Fd& device, const char* path) {
  const base::Fd point(::open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  return point && attach(device, path);
}

bool fill_dev() {
  return ::symlink("/proc/self/fd", "/dev/fd") == 0 && ::symlink("pts/ptmx", "/dev/ptmx") == 0 &&
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

constexpr char done = '.';

bool say(const base::Fd& line) { return ::write(line.get(), &done, 1) == 1; }

bool hear(const base::Fd& line) {
  char heard = 0;
  return ::read(line.get(), &heard, 1) == 1 && heard == done;
}

bool write_file(const std::string& path, const std::string& text) {
  const base::Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return file && ::write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

}  // namespace

Container::Container(const std::vector<std::string>& directories, const Users* users)
    : directories_(directories), users_(users) {}

unsigned long Container::namespaces() const {
  return CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWIPC | (users_ != nullptr ? CLONE_NEWUSER : 0UL);
}

bool Container::restrict_dev() { return set("/dev", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC); }

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

bool Container::prepare() {
  root_ = clone_of("/");
  int ends[2];
  if (!root_ || ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return false;
  }
  inside_.reset(ends[0]);
  beside_.reset(ends[1]);
  return (users_ != nullptr || make_network()) && set_groups();
}

// The groups that it is born with, where it cannot choose others.
bool Container::set_groups() const {
  constexpr gid_t groups[] = {users_begin + 5, users_begin + 6};
  return users_ == nullptr || !users_->deny_setgroups || ::setgroups(std::size(groups), groups) == 0;
}

void Container::let_go() {
  ::setgroups(0, nullptr);
  root_.reset();
  network_.reset();
  inside_.reset();
  beside_.reset();
}

bool Container::make_users(pid_t container) const {
  const auto proc = "/proc/" + std::to_string(container);
  const auto usual = "0 " + std::to_string(users_begin) + " " + std::to_string(user_count);
  return write_file(proc + "/uid_map", users_->uid_map != nullptr ? users_->uid_map : usual) &&
         (!users_->deny_setgroups || write_file(proc + "/setgroups", "deny")) &&
         write_file(proc + "/gid_map", users_->gid_map != nullptr ? users_->gid_map : usual);
}

bool Container::attend(pid_t container) const {
  if (users_ == nullptr) {
    return true;
  }
  if (!make_users(container) || !say(beside_) || !hear(beside_)) {
    return false;
  }
  const auto proc = "/proc/" + std::to_string(container);
  const base::Fd outer(::open("/proc/self/ns/net", O_RDONLY)), inner(::open((proc + "/ns/net").c_str(), O_RDONLY));
  if (!outer || !inner || ::setns(inner.get(), CLONE_NEWNET) != 0) {
    return false;
  }
  const bool filled = fill_network("/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(outer.get()));
  return ::setns(outer.get(), CLONE_NEWNET) == 0 && filled && say(beside_);
}

bool Container::become_root() const {
  return (users_->deny_setgroups || ::setgroups(0, nullptr) == 0) && ::setresgid(0, 0, 0) == 0 &&
         ::setresuid(0, 0, 0) == 0;
}

// In its network, as root.
bool Container::begin() const {
  if (users_ == nullptr) {
    return ::setns(network_.get(), CLONE_NEWNET) == 0;
  }
  return hear(inside_) && become_root() && ::unshare(CLONE_NEWNET) == 0 && say(inside_) && hear(inside_);
}

bool Container::make_dev(const std::vector<base::Fd>& bound) const {
  bool made = ::mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k") == 0;
  for (std::size_t i = 0; made && i < std::size(devices); ++i) {
    made = users_ != nullptr ? bind_device(bound[i], devices[i].path)
                             : make_device(devices[i].path, devices[i].major, devices[i].minor);
  }
  return made && fill_dev();
}

bool Container::make() const {
  if (!begin() || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return false;
  }
  std::vector<base::Fd> given, bound;
  for (const auto& directory : directories_) {
    given.push_back(clone_of(directory.c_str()));
  }
  for (const auto& device : devices) {
    bound.push_back(clone_of(device.path));
  }
  constexpr auto tame = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  const auto proc = make_detached("proc", tame), sys = make_detached("sysfs", tame | MOUNT_ATTR_RDONLY);
  bool made = proc && sys && enter_root(root_) && attach(proc, "/proc") && attach(sys, "/sys") && make_dev(bound) &&
              restrict_proc() && share();
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
  for (const auto& device : devices) {
    if (users_ != nullptr) {
      options.insert(options.end(), {"--external", std::string("mnt[") + device.path + "]:" + device.path});
    }
  }
  return options;
}

std::vector<std::string> Container::restore_options() const {
  std::vector<std::string> options{"--external", "veth[eth0]:live0@livebr"};
  for (std::size_t i = 0; i < directories_.size(); ++i) {
    options.insert(options.end(), {"--external", "mnt[given" + std::to_string(i) + "]:" + directories_[i]});
  }
  for (const auto& device : devices) {
    if (users_ != nullptr) {
      options.insert(options.end(), {"--external", std::string("mnt[") + device.path + "]:" + device.path});
    }
  }
  return options;
}

}  // namespace live
