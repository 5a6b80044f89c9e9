// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/restored_home.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "base/error.hpp"
#include "log.hpp"
#include "namespaces/home.hpp"
#include "namespaces/restored_cgroups.hpp"
#include "namespaces/tarball.hpp"
#include "namespaces/user.hpp"
#include "namespaces/uts.hpp"
#include "task/ids.hpp"
#include "task/tree.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

base::Fd current(const char* name) {
  return procfs::Task(::getpid()).open(fmt::format("ns/{}", name).c_str(), O_RDONLY);
}

}  // namespace

RestoredHome::RestoredHome(const RestoreContext& context, const RestoredIpc& ipc) : context_(context) {
  const auto& theirs = context.checkpoint.root().ids;
  const auto& ours = context.checkpoint.inventory.root_ids();
  own_pids_ = theirs.pid_ns_id() != ours.pid_ns_id();
  for (const auto& task : context.checkpoint.tasks) {
    const auto apart = task->alive() ? task::namespaces_apart(task->ids, theirs, ours) : "";
    if (!apart.empty()) {
      throw Error("not supported by this version", fmt::format("{}: namespaces of its own ({})", task->name(), apart),
                  0);
    }
  }
  if (own_pids_ && context.checkpoint.root().pid() != 1) {
    throw Error(
        "cannot restore",
        fmt::format("{}: it was in a pid namespace of its own and not its init", context.checkpoint.root().name()), 0);
  }
  try {
    populate(ipc);
  } catch (...) {
    leave();
    throw;
  }
}

void RestoredHome::populate(const RestoredIpc& ipc) {
  const auto& context = context_;
  const auto& theirs = context.checkpoint.root().ids;
  const auto& ours = context.checkpoint.inventory.root_ids();
  if (theirs.net_ns_id() != ours.net_ns_id() || !context.options.join_net.empty()) {
    network_ = std::make_unique<RestoredNet>(context, theirs.net_ns_id());
    make("net", CLONE_NEWNET, network_->given());
    network_->make();
  }
  if (theirs.uts_ns_id() != ours.uts_ns_id()) {
    make("uts", CLONE_NEWUTS);
    restore_uts(context.images, theirs.uts_ns_id());
  }
  if (auto cgroups = context.cgroups->make_namespace()) {
    before_.push_back({CLONE_NEWCGROUP, context.internal(current("cgroup")), context.internal(std::move(cgroups))});
    check(::setns(before_.back().made.get(), CLONE_NEWCGROUP), "enter the control group namespace");
  }
  if (theirs.mnt_ns_id() != ours.mnt_ns_id()) {
    mounts_ = std::make_unique<RestoredMounts>(context, own_pids_);
    outer_root_ = context.internal(base::Fd(check(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), "open", "/")));
    outer_directory_ = context.internal(base::Fd(check(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC), "open", ".")));
    tarball::load();
    make_mounts(ipc);
  }
}

void RestoredHome::make_mounts(const RestoredIpc& ipc) {
  const auto inside = ipc.enter();  // which message queues are seen in a mount
  if (!context_.users->own()) {
    make("mnt", CLONE_NEWNS);
    mounts_->take_outside();
    mounts_->make();
    return;
  }
  // What is outside is gathered in a namespace of ours; from there to theirs the kernel locks what only we may change.
  Namespace made{CLONE_NEWNS, context_.internal(current("mnt")), {}};
  const base::Fd theirs = [&] {
    base::Fd fresh;
    check(::unshare(CLONE_NEWNS), "make a namespace", "mnt");
    before_.push_back({CLONE_NEWNS, std::move(made.before), context_.internal(current("mnt"))});
    mounts_->gather_outside();
    context_.users->run([&] {
      check(::unshare(CLONE_NEWNS), "make a namespace", "mnt");
      fresh = context_.internal(current("mnt"));
      mounts_->take_gathered();
      mounts_->make();
    });
    return fresh;
  }();
  check(::setns(theirs.get(), CLONE_NEWNS), "enter the mount namespace of the tree");
  before_.back().made = context_.internal(current("mnt"));
}

RestoredHome::~RestoredHome() {
  try {
    leave();
  } catch (const Error& error) {
    LOG_ERROR("{}", error.what());
  }
}

void RestoredHome::make(const char* name, int flag, int given) {
  Namespace made{flag, context_.internal(current(name)), {}};
  base::Fd fresh;
  if (given < 0) {
    // To whose users it is to belong.
    context_.users->run([&] {
      check(::unshare(flag), "make a namespace", name);
      fresh = context_.internal(current(name));
    });
    given = context_.users->own() ? fresh.get() : -1;
  }
  if (given >= 0) {
    check(::setns(given, flag), "enter the namespace given for", name);
  }
  before_.push_back(std::move(made));
  before_.back().made = fresh ? std::move(fresh) : context_.internal(current(name));
}

void RestoredHome::leave(int but) const {
  for (auto ns = before_.rbegin(); ns != before_.rend(); ++ns) {
    if (ns->flag != but) {
      check(::setns(ns->before.get(), ns->flag), "leave the namespaces of the tree");
    }
  }
  if (outer_root_) {
    check(::fchdir(outer_root_.get()), "go back to", "the root directory");
    check(::chroot("."), "go back to", "the root directory");
    check(::fchdir(outer_directory_.get()), "go back to", "the work directory");
  }
}

void RestoredHome::enter(int but) const {
  for (const auto& ns : before_) {
    if (ns.flag != but) {
      check(::setns(ns.made.get(), ns.flag), "enter the namespaces of the tree");
    }
  }
}

RestoredHome::Outside::~Outside() {
  try {
    home_.enter(but_);
  } catch (const Error& error) {
    LOG_ERROR("{}", error.what());
  }
}

// One that no task of the tree is going to have.
pid_t RestoredHome::free_pid() const {
  pid_t pid = 2;
  for (const auto other : task::needed_pids(context_.checkpoint)) {
    pid += other == pid ? 1 : 0;
  }
  return pid;
}

void RestoredHome::make_late_mounts() const {
  const auto& ns = before_.back();  // that of the mounts
  check(::setns(ns.made.get(), ns.flag), "go back to the mounts of the tree");
  context_.users->run([this] { mounts_->make_late(); });
}

void RestoredHome::work_there(pid_t root, const std::function<void()>& work, const outside::Serve& serve) const {
  const outside::Work whole = [&] {
    work();
    return std::string();
  };
  if (!own_pids_) {
    outside::stay(whole, serve);
    return;
  }
  const auto pids = procfs::Task(root).open("ns/pid", O_RDONLY);
  const auto fork = [this] { return task::fork_with_pid(free_pid(), 0, SIGCHLD, "a helper of the restore"); };
  outside::depute([&] { return fork_into(pids.get(), fork); },
                  [&] {
                    see_own_proc();
                    return whole();
                  },
                  serve);
}

}  // namespace criu::namespaces
