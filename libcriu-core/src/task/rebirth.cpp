// SPDX-License-Identifier: LGPL-2.1-only
#include "task/rebirth.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.hpp"
#include "files/regular.hpp"
#include "log.hpp"
#include "namespaces/restored_cgroups.hpp"
#include "namespaces/restored_mounts.hpp"
#include "namespaces/steward.hpp"
#include "restorer/builder.hpp"
#include "session.hpp"
#include "task/undo.hpp"

namespace criu::task {

using base::check;
using base::Error;
using restorer::Stage;

namespace {

// Tells the master why this task cannot be restored, and waits for what the master does about it. The first wins.
[[noreturn]] void report(restorer::Shared* shared, const std::string& text, int error) {
  std::uint32_t none = 0;
  if (__atomic_compare_exchange_n(&shared->failed, &none, 1U, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    shared->failure[text.copy(shared->failure, sizeof shared->failure - 1)] = '\0';
    shared->failed_pid = 0;  // the text names the task
    shared->failed_errno = error;
    __atomic_store_n(&shared->failed, 2U, __ATOMIC_RELEASE);
    __atomic_add_fetch(&shared->event, 1, __ATOMIC_ACQ_REL);
    restorer::futex_wake_all(&shared->event);
  }
  restorer::wait_at(&shared->gates[static_cast<int>(Stage::ready)]);
  ::_exit(1);
}

class Rebirth {
 public:
  // `maker`: whose fork it is, which need not be the parent's; null: the master's.
  Rebirth(RestoreContext& context, Family& family, const TaskImage& task, const TaskImage* maker,
          memory::Restored* parent)
      : context_(context),
        family_(family),
        task_(task),
        maker_(maker),
        parent_(parent),
        memory_(family.memories[task.index]) {}

  [[noreturn]] void run() {
    try {
      live();
    } catch (const Error& error) {
      report(context_.shared, error.what(), error.code());
    } catch (const std::exception& error) {
      report(context_.shared, fmt::format("{}: {}", task_.name(), error.what()), 0);
    }
  }

 private:
  [[noreturn]] void live() {
    settle();
    if (!task_.alive()) {
      live_as_zombie();
    }
    memory_.fill(context_, task_, parent_);
    make_children(Birth::early);
    if (leads_session()) {
      check(::setsid(), "make a session", task_.name());
      // Only the leader can get it for itself; all others of its session are born with it.
      context_.objects.terminals.take_control(task_);
    }
    make_children(Birth::late);
    make_siblings();
    make_session_helpers();
    make_helpers();
    join_group();
    reap_helpers(false);
    give_up_terminal();
    restore_files();
    memory_.make_own(context_, task_);
    restore_undo(task_);
    restorer::become(context_, task_, memory_, surroundings(), family_.regions[task_.index]);
  }

  bool leads_session() const { return static_cast<pid_t>(task_.entry.sid()) == task_.pid(); }

  void settle() {
    log_as_task(context_.options, task_.pid());
    // Until the restorer takes over, a task dies with its parent, and so with the master.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    context_.cgroups->enter(task_, maker_);
    if (!task_.shares_files()) {
      check(::syscall(SYS_close_range, 0, context_.first_internal_fd - 1, 0), "close descriptors", task_.name());
    }
    ::prctl(PR_SET_NAME, task_.core.tc().comm().c_str());
  }

  [[noreturn]] void live_as_zombie() {
    if (leads_session()) {
      check(::setsid(), "make a session", task_.name());
    }
    join_group();
    const auto code = task_.core.tc().exit_code();
    const auto signo = static_cast<int>(code & 0x7f);
    if (signo == 0) {
      ::_exit(static_cast<int>(code >> 8 & 0xff));
    }
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::signal(signo, SIG_DFL);
    sigset_t all;
    sigfillset(&all);
    ::sigprocmask(SIG_UNBLOCK, &all, nullptr);
    ::kill(::getpid(), signo);
    ::kill(::getpid(), SIGKILL);  // a signal that does not kill is no cause of death
    ::_exit(1);
  }

  // Parent and child note it both: either may be killed before it gets to it.
  pid_t bear(pid_t pid, std::uint64_t flags, const std::string& who, int exit_signal = SIGCHLD) const {
    const auto born = fork_with_pid(pid, flags, exit_signal, who);
    family_.births->add(pid);
    return born;
  }

  void make(const TaskImage& task, std::uint64_t flags) {
    if (bear(task.pid(), flags, task.name(), task.exit_signal()) == 0) {
      Rebirth(context_, family_, task, &task_, &memory_).run();
    }
  }

  void make_children(Birth birth) {
    for (const auto* child : task_.children) {
      if (family_.sessions.birth(*child) == birth) {
        make(*child, child->shares_files() ? std::uint64_t{CLONE_FILES} : 0);
      }
    }
  }

  // Whom a sibling makes tells of its end with the sibling's signal.
  void make_sibling(const TaskImage& task, int own_exit_signal) {
    if (task.exit_signal() != own_exit_signal) {
      throw Error("not supported by this version",
                  fmt::format("the exit signal {} of {} in its session", task.exit_signal(), task.name()), 0);
    }
    make(task, CLONE_PARENT);
  }

  // Children of the parent that belong to the session this task leads.
  void make_siblings() {
    if (task_.parent == nullptr || !leads_session()) {
      return;
    }
    for (const auto* sibling : task_.parent->children) {
      if (sibling->entry.sid() == task_.entry.pid() && family_.sessions.birth(*sibling) == Birth::by_sibling) {
        make_sibling(*sibling, task_.exit_signal());
      }
    }
  }

  void make_session_helpers() {
    for (const auto& [session, members] : family_.sessions.helpers_of(task_)) {
      if (bear(session, 0, fmt::format("the leader of session {}, which is gone,", session)) == 0) {
        lead_session(members);
      }
    }
  }

  [[noreturn]] void lead_session(const std::vector<const TaskImage*>& members) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    check(::setsid(), "make a session for", members.front()->name());
    for (const auto* member : members) {
      make_sibling(*member, SIGCHLD);
    }
    restorer::pass(context_.shared, Stage::forked);
    restorer::pass(context_.shared, Stage::grouped);
    ::_exit(0);
  }

  void make_helpers() {
    const auto [begin, end] = family_.helpers.equal_range(&task_);
    for (auto helper = begin; helper != end; ++helper) {
      const bool told_of = family_.told_of.contains(helper->second);
      const auto who =
          fmt::format("{} {}, which is gone,", told_of ? "process" : "the leader of process group", helper->second);
      // Nobody is to hear of its end.
      if (bear(helper->second, 0, who, 0) == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::setpgid(0, 0) < 0) {
          report(context_.shared, "make process group " + std::to_string(helper->second), errno);
        }
        restorer::pass(context_.shared, Stage::forked);
        restorer::pass(context_.shared, Stage::grouped);
        if (told_of) {
          restorer::pass(context_.shared, Stage::opened);
        }
        ::_exit(0);
      }
    }
  }

  // Its children have been born with it.
  void give_up_terminal() const {
    if (!task_.core.tc().extension().no_terminal()) {
      return;
    }
    const base::Fd terminal(::open("/dev/tty", O_RDWR | O_CLOEXEC));
    if (terminal || errno != ENXIO) {
      check(terminal.get(), "open the controlling terminal of", task_.name());
      check(::ioctl(terminal.get(), TIOCNOTTY), "give up the controlling terminal of", task_.name());
    }
  }

  void reap_helpers(bool told_of) {
    const auto [begin, end] = family_.helpers.equal_range(&task_);
    for (auto helper = begin; helper != end; ++helper) {
      if (family_.told_of.contains(helper->second) != told_of) {
        continue;
      }
      check(::waitpid(helper->second, nullptr, __WALL), "wait for the helper of a process group", task_.name());
      family_.births->remove(helper->second);
    }
    if (told_of) {
      return;
    }
    for (const auto& [session, members] : family_.sessions.helpers_of(task_)) {
      check(::waitpid(session, nullptr, 0), "wait for the helper of a session", task_.name());
      family_.births->remove(session);
    }
  }

  // A group must exist before others can join it: leaders first.
  void join_group() {
    const auto group = static_cast<pid_t>(task_.entry.pgid());
    if (group == task_.pid() && !leads_session()) {
      check(::setpgid(0, 0), "make a process group", task_.name());
    }
    restorer::pass(context_.shared, Stage::forked);
    if (::getpgrp() != group) {
      check(::setpgid(0, group), "join the process group", fmt::format("{} of {}", group, task_.name()));
    }
    if (task_.alive() && leads_session()) {
      context_.objects.terminals.set_foreground(task_);
    }
    restorer::pass(context_.shared, Stage::grouped);
  }

  void restore_files() {
    context_.files.make(context_, task_);
    restorer::pass(context_.shared, Stage::opened);
    reap_helpers(true);
    context_.files.collect(context_, task_);
    context_.files.connect(context_, task_);
    restorer::pass(context_.shared, Stage::connected);
  }

  restorer::Surroundings surroundings() {
    const auto& fs = task_.fs;
    const auto where = "the root directory of " + task_.name();
    restorer::Surroundings result;
    result.mounts = context_.mounts == nullptr ? -1 : context_.mounts->namespace_of(task_.ids.mnt_ns_id());
    if (context_.checkpoint.file(images::REG, fs.root_id(), where).reg().name() != "/") {
      result.root = files::open_path(context_, fs.root_id(), O_PATH, where);
    }
    result.directory = files::open_path(context_, fs.cwd_id(), O_PATH, "the working directory of " + task_.name());
    if (fs.has_umask()) {
      ::umask(fs.umask());
    }
    write_proc("oom_score_adj", task_.core.tc().has_oom_score_adj() && task_.core.tc().oom_score_adj() != 0,
               task_.core.tc().oom_score_adj(), true);
    write_proc("loginuid", task_.core.tc().has_loginuid() && task_.core.tc().loginuid() != ~0U,
               static_cast<std::int32_t>(task_.core.tc().loginuid()));
    write_proc("coredump_filter", task_.core.tc().extension().has_coredump_filter(),
               task_.core.tc().extension().coredump_filter());
    return result;
  }

  // Attributes that are as they should be, or that this kernel or our rights do not let us set, are no reason to fail.
  // `by_root`: another process may do it, too.
  void write_proc(const char* name, bool wanted, std::int64_t value, bool by_root = false) {
    if (!wanted) {
      return;
    }
    const base::Fd fd(::open(fmt::format("/proc/self/{}", name).c_str(), O_RDWR | O_CLOEXEC));
    const auto text = std::to_string(value);
    bool written = fd && ::write(fd.get(), text.data(), text.size()) > 0;
    if (const auto* steward = namespaces::Steward::current(); !written && by_root && steward != nullptr) {
      written = steward->set_attribute(name, text);
    }
    if (!written) {
      LOG_WARN("{} of {} cannot be set to {}: {}", name, task_.name(), value, std::strerror(errno));
    }
  }

  RestoreContext& context_;
  Family& family_;
  const TaskImage& task_;
  const TaskImage* maker_;
  memory::Restored* parent_;
  memory::Restored& memory_;
};

}  // namespace

void Births::remove(pid_t pid) {
  for (std::uint32_t i = 0; i < __atomic_load_n(&count, __ATOMIC_ACQUIRE); ++i) {
    auto expected = pid;
    __atomic_compare_exchange_n(&pids()[i], &expected, 0, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  }
}

Family::Family(const Checkpoint& checkpoint)
    : sessions(checkpoint), helpers(group_helpers(checkpoint, sessions)), told_of(processes_told_of(checkpoint)) {
  for (const auto pid : told_of) {
    const auto has_pid = [pid](const auto& helper) { return helper.second == pid; };
    if (sessions.has_helper(pid)) {
      throw Error("not supported by this version",
                  fmt::format("a file of /proc that tells of process {}, which is gone and had led a session", pid), 0);
    }
    if (std::none_of(helpers.begin(), helpers.end(), has_pid)) {
      helpers.emplace(&checkpoint.root(), pid);
    }
  }
}

void Family::study_memories(const RestoreContext& context) {
  memories.resize(context.checkpoint.tasks.size());
  for (const auto& task : context.checkpoint.tasks) {
    if (task->alive()) {
      memories[task->index].study(context, *task);
    }
  }
}

std::size_t Family::size_of_births(const Checkpoint& checkpoint) const {
  const auto all = checkpoint.tasks.size() + helpers.size() + sessions.helper_count();
  return sizeof(Births) + 2 * all * sizeof(pid_t);
}

void Family::expect(const Checkpoint& checkpoint, restorer::Shared& shared) const {
  std::uint32_t alive = 0, threads = 0;
  for (const auto& task : checkpoint.tasks) {
    if (task->alive()) {
      ++alive;
      threads += 1 + static_cast<std::uint32_t>(task->threads.size());
    }
  }
  const auto all = static_cast<std::uint32_t>(checkpoint.tasks.size() + helpers.size() + sessions.helper_count());
  const auto making_files = alive + static_cast<std::uint32_t>(told_of.size());
  const std::uint32_t counts[] = {all, all, making_files, alive, threads, threads};
  static_assert(std::size(counts) == static_cast<int>(Stage::count));
  std::copy(std::begin(counts), std::end(counts), shared.expected);
}

pid_t give_birth(RestoreContext& context, Family& family, std::uint64_t flags) {
  const auto& root = context.checkpoint.root();
  sigset_t all, before;
  sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, &before);
  const auto pid = fork_with_pid(root.pid(), flags, SIGCHLD, root.name());
  if (pid == 0) {
    Rebirth(context, family, root, nullptr, nullptr).run();
  }
  ::sigprocmask(SIG_SETMASK, &before, nullptr);
  return pid;
}

}  // namespace criu::task
