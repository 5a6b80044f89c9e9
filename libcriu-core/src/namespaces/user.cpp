// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/user.hpp"

#include <fcntl.h>
#include <fdinfo.pb.h>  // before <signal.h>, whose macro has the name of a field of it
#include <fmt/format.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <exception>
#include <sstream>

#include "base/error.hpp"
#include "dump_context.hpp"
#include "image/directory.hpp"
#include "restore_context.hpp"
#include "task/master.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

constexpr std::uint32_t nobody = ~0U;
constexpr std::size_t stack_size = 8 << 20;  // who is born on it stays there until its old memory goes
constexpr const char* denied = "deny";

template <typename Map>
void parse_map(const std::string& text, Map& map) {
  std::istringstream lines(text);
  for (std::uint32_t first = 0, lower = 0, count = 0; lines >> first >> lower >> count;) {
    auto& extent = *map.Add();
    extent.set_first(first);
    extent.set_lower_first(lower);
    extent.set_count(count);
  }
}

template <typename Map>
std::string as_text(const Map& map) {
  std::string text;
  for (const auto& extent : map) {
    text += fmt::format("{} {} {}\n", extent.first(), extent.lower_first(), extent.count());
  }
  return text;
}

template <typename Map>
bool is_sound(const Map& map) {
  return map.size() > 0 && std::all_of(map.begin(), map.end(), [](const images::uid_gid_extent& extent) {
           return extent.count() != 0 && extent.first() <= nobody - extent.count() &&
                  extent.lower_first() <= nobody - extent.count();
         });
}

// Root, if there is one.
template <typename Map>
std::uint32_t first_of(const Map& map) {
  std::uint32_t first = nobody;
  for (const auto& extent : map) {
    first = std::min(first, extent.first());
  }
  return first;
}

struct Job {
  const std::function<void()>& work;
  std::exception_ptr failure;
};

int run_job(void* argument) {
  auto& job = *static_cast<Job*>(argument);
  try {
    job.work();
  } catch (...) {
    job.failure = std::current_exception();
  }
  // Or the kernel would write to where the C library keeps the number of the thread that waits for this one.
  ::syscall(SYS_set_tid_address, nullptr);
  return 0;
}

// Until it ends, this thread stands still: so the two can even share what belongs to a thread. How it ended.
int share_memory_with(int (*run)(void*), Job& job, void* stack, bool as_sibling) {
  // What is meant for this process must not run its handlers there.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const int flags = CLONE_VM | CLONE_VFORK | CLONE_FILES | (as_sibling ? CLONE_PARENT : 0) | SIGCHLD;
  const auto worker = ::clone(run, stack, flags, &job);
  const int error = errno;
  int status = 0;
  while (worker > 0 && !as_sibling && ::waitpid(worker, &status, __WALL) < 0 && errno == EINTR) {
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (worker < 0) {
    throw Error("make a process for the user namespace of the tree", {}, error);
  }
  return status;
}

}  // namespace

Stack::~Stack() {
  if (at_ != nullptr) {
    ::munmap(at_, stack_size);
  }
}

void Stack::map() {
  at_ = ::mmap(nullptr, stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1,
               0);
  if (at_ == MAP_FAILED) {
    at_ = nullptr;
    throw Error("map a stack", {}, errno);
  }
}

void* Stack::top() const { return static_cast<char*>(at_) + stack_size; }

Users::Users(const procfs::Task& task) : ns_(task.open("ns/user", O_RDONLY | O_CLOEXEC)) {
  parse_map(task.read("uid_map"), *entry_.mutable_uid_map());
  parse_map(task.read("gid_map"), *entry_.mutable_gid_map());
  if (task.read("setgroups").starts_with(denied)) {
    entry_.set_setgroups_denied(true);
    // For what runs inside, which must not have more groups than the tree.
    groups_ = procfs::parse_status(task.read("status")).groups;
  }
  stack_.map();
}

namespace {

using Range = Users::Range;

// The part of a range that an extent has on its side `from`, as it is on the side `to`, added to what is there already.
void add_part(std::optional<Range>& sum, Range range, std::uint32_t from, std::uint32_t to, std::uint32_t count) {
  const auto first = std::max(range.first, from);
  const auto last = std::min<std::uint64_t>(range.second, std::uint64_t{from} + count - 1);
  if (count == 0 || first > last) {
    return;
  }
  const Range part{to + (first - from), to + static_cast<std::uint32_t>(last - from)};
  sum = sum ? Range{std::min(sum->first, part.first), std::max(sum->second, part.second)} : part;
}

}  // namespace

std::optional<Range> Users::groups(Range outside) const {
  std::optional<Range> found = own() ? std::nullopt : std::optional(outside);
  for (const auto& extent : entry_.gid_map()) {
    add_part(found, outside, extent.lower_first(), extent.first(), extent.count());
  }
  return found;
}

std::optional<Range> Users::groups_outside(Range inside) const {
  std::optional<Range> found = own() ? std::nullopt : std::optional(inside);
  for (const auto& extent : entry_.gid_map()) {
    add_part(found, inside, extent.first(), extent.lower_first(), extent.count());
  }
  return found;
}

std::uint32_t Users::inside(const Map& map, std::uint32_t id) {
  for (const auto& extent : map) {
    if (id >= extent.lower_first() && id - extent.lower_first() < extent.count()) {
      return extent.first() + (id - extent.lower_first());
    }
  }
  return nobody;
}

std::uint32_t Users::outside(const Map& map, std::uint32_t id) {
  for (const auto& extent : map) {
    if (id >= extent.first() && id - extent.first() < extent.count()) {
      return extent.lower_first() + (id - extent.first());
    }
  }
  return nobody;
}

void Users::translate(procfs::Status& status) const {
  if (!own()) {
    return;
  }
  for (auto& id : status.uid) {
    id = user(id);
  }
  for (auto& id : status.gid) {
    id = group(id);
  }
  for (auto& id : status.groups) {
    id = group(id);
  }
}

void Users::enter() const {
  const char* what = "become root of the user namespace of the tree";
  // Some namespaces let nobody inside change them.
  check(::syscall(SYS_setgroups, groups_.size(), groups_.data()), what);
  check(::setns(ns_.get(), CLONE_NEWUSER), "enter the user namespace of the tree");
  const auto group = first_of(entry_.gid_map()), user = first_of(entry_.uid_map());
  check(::syscall(SYS_setresgid, group, group, group), what);
  check(::syscall(SYS_setresuid, user, user, user), what);
  // The kernel takes it away from who changes its user, and then the others of the tree could not have descriptors of
  // this one. In a namespace that somebody else has made it stays away: its maker, who need not be root, could get at
  // our memory.
  if (ours_) {
    check(::prctl(PR_SET_DUMPABLE, 1), what);
  }
  check(::prctl(PR_SET_PDEATHSIG, SIGKILL), what);
}

// A process and no thread, as threads of a process have the same users. There is no way back from there: so it is made
// anew each time.
void Users::run(const std::function<void()>& work, bool as_sibling) const {
  if (!own()) {
    return work();
  }
  int* own_tid = nullptr;
  ::prctl(PR_GET_TID_ADDRESS, &own_tid, 0, 0, 0);
  const std::function<void()> whole = [&] {
    // As in the thread that waits: a child that is forked here gets its number written there.
    ::syscall(SYS_set_tid_address, own_tid);
    enter();
    work();
  };
  Job job{whole, nullptr};
  const auto dumpable = ::prctl(PR_GET_DUMPABLE);
  const auto ending = share_memory_with(run_job, job, stack_.top(), as_sibling);
  ::prctl(PR_SET_DUMPABLE, dumpable);
  if (job.failure) {
    std::rethrow_exception(job.failure);
  }
  if (WIFSIGNALED(ending)) {
    throw Error("cannot go on",
                fmt::format("the process in the tree's user namespace ended: signal {}", WTERMSIG(ending)), 0);
  }
}

bool has_nobody(const procfs::Status& status) {
  const auto has = [](const auto& ids) { return std::find(std::begin(ids), std::end(ids), nobody) != std::end(ids); };
  return has(status.uid) || has(status.gid) || has(status.groups);
}

const Users& our_users() {
  static const Users ours;
  return ours;
}

std::string foreign_namespaces(const procfs::Task& root) {
  const auto same = [](const struct stat& a, const struct stat& b) {
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
  };
  const auto users_of = [](const base::Fd& fd) {
    struct stat stat {};
    check(::fstat(fd.get(), &stat), "look at a user namespace");
    return stat;
  };
  const auto theirs = users_of(root.open("ns/user", O_RDONLY | O_CLOEXEC));
  std::string all;
  for (const char* name : {"pid", "mnt", "uts", "ipc", "net"}) {
    const auto ns = root.open(fmt::format("ns/{}", name).c_str(), O_RDONLY | O_CLOEXEC);
    // One that belongs to users above ours cannot be had.
    const base::Fd owner(::ioctl(ns.get(), NS_GET_USERNS));
    if (!owner || !same(users_of(owner), theirs)) {
      all += (all.empty() ? "" : ", ") + std::string(name);
    }
  }
  return all;
}

void save_users(const DumpContext& dump, std::uint32_t ns_id) {
  if (dump.users->own()) {
    dump.images.put(image::type::userns, ns_id, dump.users->entry());
  }
}

RestoredUsers::RestoredUsers(const RestoreContext& context) {
  const auto& theirs = context.checkpoint.root().ids;
  if (theirs.user_ns_id() == context.checkpoint.inventory.root_ids().user_ns_id()) {
    return;
  }
  entry_ = context.images.only<images::userns_entry>(image::type::userns, theirs.user_ns_id());
  if (!is_sound(entry_.uid_map()) || !is_sound(entry_.gid_map())) {
    throw Error("corrupt checkpoint", fmt::format("userns-{}.img", theirs.user_ns_id()), 0);
  }
  check_credentials(context);
  if (entry_.setgroups_denied()) {
    for (const auto group : context.checkpoint.root().core.thread_core().creds().groups()) {
      groups_.push_back(outside(entry_.gid_map(), group));
    }
  }
  stack_.map();
}

// An id that is nobody's is no wish to a system call: it would leave the task root.
void RestoredUsers::check_credentials(const RestoreContext& context) const {
  const auto look = [this, &context](const images::core_entry& core, const std::string& name) {
    const auto& creds = core.thread_core().creds();
    const auto users = {creds.uid(), creds.euid(), creds.suid(), creds.fsuid()};
    const auto groups = {creds.gid(), creds.egid(), creds.sgid(), creds.fsgid()};
    const auto missing = [](const Map& map, const auto& ids) {
      return std::any_of(ids.begin(), ids.end(), [&](std::uint32_t id) { return outside(map, id) == nobody; });
    };
    if (missing(entry_.uid_map(), users) || missing(entry_.gid_map(), groups) ||
        missing(entry_.gid_map(), creds.groups())) {
      throw Error("cannot restore", name + ": its user namespace has no such user or group", 0);
    }
    const auto& all = context.checkpoint.root().core.thread_core().creds().groups();
    if (entry_.setgroups_denied() &&
        !std::equal(all.begin(), all.end(), creds.groups().begin(), creds.groups().end())) {
      throw Error("cannot restore", name + ": its groups are not those of the root task", 0,
                  "in its user namespace nobody may change them");
    }
  };
  for (const auto& task : context.checkpoint.tasks) {
    if (task->alive()) {
      look(task->core, task->name());
      for (const auto& thread : task->threads) {
        look(thread, task->name());
      }
    }
  }
}

namespace {

void write_map(const procfs::Task& task, const char* name, const std::string& text) {
  const auto file = task.open(name, O_WRONLY | O_CLOEXEC);
  check(::write(file.get(), text.data(), text.size()), "set", fmt::format("{} of the user namespace", name),
        "who restores must have all users and groups that the tree had");
}

}  // namespace

// The first process in it says what the ids mean; from outside, since only who has all of them may.
void RestoredUsers::make(const RestoreContext& context) {
  if (entry_.uid_map().empty()) {
    return;
  }
  int ends[2];
  check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "make a pair of sockets");
  base::Fd there(ends[0]), here(ends[1]);
  const auto maker = check(::fork(), "make a process");
  if (maker == 0) {
    there.reset();
    int error = ::unshare(CLONE_NEWUSER) == 0 ? 0 : errno;
    static_cast<void>(!::write(here.get(), &error, sizeof error));
    static_cast<void>(!::read(here.get(), &error, sizeof error));  // until the other one is done with it, or dies
    ::_exit(0);
  }
  here.reset();
  struct End {
    pid_t pid;
    ~End() {
      ::kill(pid, SIGKILL);
      task::reap(pid);
    }
  } const end{maker};
  int error = ECHILD;
  if (::read(there.get(), &error, sizeof error) != static_cast<ssize_t>(sizeof error) || error != 0) {
    throw Error("make the user namespace", {}, error);
  }
  const procfs::Task task(maker);
  write_map(task, "uid_map", as_text(entry_.uid_map()));
  if (entry_.setgroups_denied()) {
    write_map(task, "setgroups", denied);
  }
  write_map(task, "gid_map", as_text(entry_.gid_map()));
  ns_ = context.internal(task.open("ns/user", O_RDONLY | O_CLOEXEC));
  ours_ = true;
}

}  // namespace criu::namespaces
