// SPDX-License-Identifier: LGPL-2.1-only
#include "task/dump.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "core/registers.hpp"
#include "log.hpp"
#include "memory/areas.hpp"
#include "memory/pages.hpp"
#include "namespaces/cgroups.hpp"
#include "namespaces/user.hpp"
#include "task/objects.hpp"

namespace criu::task {

using base::Error;

namespace {

// One step of saving one task; its parts share what was read of it.
class TaskSaver {
 public:
  TaskSaver(DumpContext& context, FrozenTree& tree, std::size_t index, Collected& all, SavedTask& saved)
      : context_(context),
        tree_(tree),
        index_(index),
        task_(tree.tasks()[index]),
        all_(all),
        saved_(saved),
        proc_(task_.pid) {}

  void save() {
    stat_ = procfs::parse_stat(proc_.read("stat"));
    if (task_.state == TaskState::dead) {
      return save_zombie();
    }
    if (stat_.state == 'Z') {
      throw leader_ended(name());
    }
    status_ = read_status("status");
    mem_ = proc_.open("mem", O_RDONLY);
    ids_ = all_.ids.of(task_.pid, proc_);
    check_sharing();
    save_areas();
    timers_ = procfs::parse_timers(proc_.read("timers"));
    std::vector<int> timer_ids;
    for (const auto& timer : timers_) {
      timer_ids.push_back(timer.id);
    }
    if (const int locks = tree_.query(index_, timer_ids, status_.locked, process_, timer_values_, threads_);
        locks != 0) {
      saved_.mm.mutable_extension()->set_lock_future(static_cast<std::uint32_t>(locks));
    }
    check_aio_rings();
    copy_pages();
    context_.images.put(image::type::ids, task_.pid, ids_);
    save_files();
    save_mm();
    save_leader();
    for (std::size_t i = 1; i < task_.tids.size(); ++i) {
      save_other_thread(i);
    }
  }

 private:
  std::string name() const { return fmt::format("task {} ({})", task_.pid, stat_.comm); }

  procfs::Status read_status(const char* file) const {
    auto status = procfs::parse_status(proc_.read(file));
    context_.users->translate(status);
    return status;
  }

  void save_zombie() {
    images::core_entry core;
    core.set_mtype(images::core_entry_march_X86_64);
    auto& tc = *core.mutable_tc();
    tc.set_task_state(static_cast<std::uint32_t>(TaskState::dead));
    tc.set_exit_code(static_cast<std::uint32_t>(stat_.exit_code));
    tc.set_personality(0);
    tc.set_flags(stat_.flags);
    tc.set_blk_sigset(0);
    tc.set_comm(stat_.comm);
    context_.images.put(image::type::core, task_.pid, core);
  }

  void check_sharing() {
    constexpr std::uint64_t cs_64 = 0x33;
    if (tree_.registers(index_, task_.pid).cs != cs_64) {
      throw is_32_bit(name());
    }
    if (const auto which = namespaces_apart(ids_, all_.ids.root(), all_.ids.own()); !which.empty()) {
      context_.obstacles.push_back(other_namespaces(name(), which));
    }
    if (const auto what = all_.ids.in_common(task_.pid, task_.ppid); !what.empty()) {
      context_.obstacles.push_back(shares(name(), what));
    }
    for (std::size_t i = 1; i < task_.tids.size(); ++i) {
      if (const auto what = apart_from_process(task_.pid, task_.tids[i]); !what.empty()) {
        context_.obstacles.push_back(apart(name(), task_.tids[i], what));
      }
    }
  }

  void save_areas() {
    areas_ = saved_.areas.valid() ? saved_.areas.get() : procfs::parse_smaps(proc_.read("smaps"));
    memory::save_areas(context_, all_.files, proc_, areas_, saved_.mm);
  }

  // A child inherits the memory of a ring, but not what the kernel keeps of it: to the child it is nothing.
  void check_aio_rings() {
    for (const auto& ring : saved_.mm.aios()) {
      if (tree_.syscall(index_, SYS_io_getevents, ring.id()) < 0) {
        context_.obstacles.emplace_back("cannot dump", name(), 0,
                                        fmt::format("at {:#x} it has the memory of a ring of asynchronous I/O of "
                                                    "another task, which would become a ring of its own",
                                                    ring.id()));
      }
    }
  }

  // The worker copies the pages while the rest is saved. Not sooner: a task that is asked from inside has to run, and
  // would have to share the processors with it.
  void copy_pages() {
    std::vector<std::uint64_t> stack_pointers;
    for (const auto tid : task_.tids) {
      stack_pointers.push_back(tree_.registers(index_, tid).rsp);
    }
    auto pages = memory::pages_of(context_, task_.pid, areas_, saved_.mm, std::move(stack_pointers));
    context_.worker.post(
        [&images = context_.images, &worker = context_.worker, &saved = saved_, pages = std::move(pages)] {
          saved.pages = memory::save_pages(images, pages, [&worker] { return worker.abandoned(); });
        },
        stat_.resident * memory::page_size);
  }

  void save_files() {
    all_.files.collect_table(task_.pid, ids_.files_id());
    context_.attempt([&] {
      images::fs_entry fs;
      fs.set_cwd_id(all_.files.reference(proc_, "cwd"));
      fs.set_root_id(all_.files.reference(proc_, "root"));
      fs.set_umask(status_.umask);
      context_.images.put(image::type::fs, task_.pid, fs);
    });
  }

  void save_mm() {
    auto& mm = saved_.mm;
    save_protection_keys();
    mm.set_mm_start_code(stat_.start_code), mm.set_mm_end_code(stat_.end_code);
    mm.set_mm_start_data(stat_.start_data), mm.set_mm_end_data(stat_.end_data);
    mm.set_mm_start_stack(stat_.start_stack), mm.set_mm_start_brk(stat_.start_brk);
    mm.set_mm_brk(process_.brk);
    mm.set_mm_arg_start(stat_.arg_start), mm.set_mm_arg_end(stat_.arg_end);
    mm.set_mm_env_start(stat_.env_start), mm.set_mm_env_end(stat_.env_end);
    mm.set_dumpable(process_.dumpable);
    mm.set_thp_disabled(process_.thp_disabled != 0);
    const auto auxv = proc_.read("auxv");
    constexpr std::size_t auxv_words = 44;
    for (std::size_t i = 0; i < std::min(auxv.size() / sizeof(std::uint64_t), auxv_words); ++i) {
      std::uint64_t word = 0;
      std::memcpy(&word, auxv.data() + i * sizeof word, sizeof word);
      mm.add_mm_saved_auxv(word);
    }
    context_.attempt([&] { mm.set_exe_file_id(all_.files.reference(proc_, "exe")); });
  }

  void save_protection_keys() {
    auto keys = process_.protection_keys;
    for (const auto& vma : saved_.mm.vmas()) {
      if (memory::is_execute_only(vma)) {
        keys &= ~(1U << vma.extension().protection_key());
      }
    }
    if (keys != 0) {
      saved_.mm.mutable_extension()->set_protection_keys(keys);
    }
  }

  void save_registers(pid_t tid, const ThreadRseq& rseq, images::core_entry& core) {
    core.set_mtype(images::core_entry_march_X86_64);
    auto registers = tree_.registers(index_, tid);
    if (rseq.inside) {
      registers.rip = rseq.abort_ip;
    }
    const auto memory = [this](std::uint64_t address, void* into, std::size_t size) {
      return ::pread(mem_.get(), into, size, static_cast<off_t>(address)) == static_cast<ssize_t>(size);
    };
    arch::save_registers({registers, arch::read_extended(tid)}, memory, core);
  }

  void save_leader() {
    images::core_entry core;
    const auto rseq = tree_.rseq(index_, task_.pid);
    save_registers(task_.pid, rseq, core);
    core.mutable_thread_info()->set_clear_tid_addr(threads_[0].clear_tid);
    auto& tc = *core.mutable_tc();
    tc.set_task_state(static_cast<std::uint32_t>(task_.state));
    if (task_.state == TaskState::stopped) {
      tc.set_stop_signo(static_cast<std::uint32_t>(task_.stop_signal));
    }
    tc.set_exit_code(0);
    tc.set_personality(static_cast<std::uint32_t>(std::strtoul(proc_.read("personality").c_str(), nullptr, 16)));
    tc.set_flags(stat_.flags);
    tc.set_blk_sigset(tree_.signal_mask(index_, task_.pid));
    tc.set_comm(stat_.comm);
    tc.set_child_subreaper(process_.child_subreaper != 0);
    if (process_.membarrier > 0) {
      tc.set_membarrier_registration_mask(static_cast<std::uint32_t>(process_.membarrier));
    }
    tc.set_oom_score_adj(static_cast<std::int32_t>(std::strtol(proc_.read("oom_score_adj").c_str(), nullptr, 10)));
    try {
      tc.set_loginuid(
          context_.users->user(static_cast<std::uint32_t>(std::strtoul(proc_.read("loginuid").c_str(), nullptr, 10))));
    } catch (const Error&) {
      // A kernel without audit.
    }
    save_extension(tc);
    save_signals(task_.pid, process_, tc);
    save_timers(timers_, process_, timer_values_, *tc.mutable_timers());
    save_limits(task_.pid, proc_, *tc.mutable_rlimits());
    save_thread_core(task_.pid, rseq, status_, threads_[0], core);
    context_.images.put(image::type::core, task_.pid, core);
  }

  void save_extension(images::task_core_entry& tc) {
    if (const auto personality = std::strtoul(proc_.read("personality").c_str(), nullptr, 16); personality != 0) {
      tc.mutable_extension()->set_personality(static_cast<std::uint32_t>(personality));
    }
    if (process_.mdwe > 0) {
      tc.mutable_extension()->set_mdwe(static_cast<std::uint32_t>(process_.mdwe));
    }
    constexpr unsigned long usual_filter = 0x33;
    if (const auto filter = std::strtoul(proc_.read("coredump_filter").c_str(), nullptr, 16); filter != usual_filter) {
      tc.mutable_extension()->set_coredump_filter(static_cast<std::uint32_t>(filter));
    }
    if (stat_.exit_signal != SIGCHLD && task_.ppid != 0) {
      tc.mutable_extension()->set_exit_signal(static_cast<std::uint32_t>(stat_.exit_signal));
    }
    if (stat_.terminal == 0 && context_.controls.contains(stat_.session)) {
      tc.mutable_extension()->set_no_terminal(true);
    }
    // Bits 17 and 18 are AMX; the tile data is what has to be asked for.
    constexpr std::uint64_t on_request = std::uint64_t{1} << 18;
    if ((process_.xstate_permitted & on_request) != 0) {
      tc.mutable_extension()->set_xstate_permitted(process_.xstate_permitted);
    }
  }

  void save_other_thread(std::size_t index) {
    const auto tid = task_.tids[index];
    images::core_entry core;
    const auto rseq = tree_.rseq(index_, tid);
    save_registers(tid, rseq, core);
    core.mutable_thread_info()->set_clear_tid_addr(threads_[index].clear_tid);
    core.mutable_thread_core()->set_blk_sigset(tree_.signal_mask(index_, tid));
    const auto status = read_status(fmt::format("task/{}/status", tid).c_str());
    save_thread_core(tid, rseq, status, threads_[index], core);
    context_.images.put(image::type::core, tid, core);
  }

  void save_thread_core(pid_t tid, const ThreadRseq& rseq, const procfs::Status& status,
                        const parasite::ThreadInfo& info, images::core_entry& core) {
    context_.attempt([&] {
      if (info.error != 0) {
        throw Error("ask", fmt::format("thread {}", tid), -info.error);
      }
      auto& thread = *core.mutable_thread_core();
      save_thread(tid, info, rseq, thread);
      save_credentials(status, info, *thread.mutable_creds());
      if (context_.users->own() && namespaces::has_nobody(status)) {
        throw Error("cannot dump", fmt::format("thread {} of {}", tid, name()), 0,
                    "it has a user or group that its user namespace does not have");
      }
      save_seccomp(tid, status, all_.seccomp, thread);
      thread.set_cg_set(context_.cgroups->set_of(tid));
    });
  }

  DumpContext& context_;
  FrozenTree& tree_;
  std::size_t index_;
  const FrozenTask& task_;
  Collected& all_;
  SavedTask& saved_;
  procfs::Task proc_;
  base::Fd mem_;
  procfs::Stat stat_;
  std::vector<procfs::Area> areas_;
  procfs::Status status_;
  images::task_kobj_ids_entry ids_;
  std::vector<procfs::Timer> timers_;
  parasite::ProcessInfo process_{};
  std::vector<parasite::Timer> timer_values_;
  std::vector<parasite::ThreadInfo> threads_;
};

}  // namespace

void look_at_areas(DumpContext& context, const FrozenTask& task, SavedTask& saved) {
  if (task.state == TaskState::dead || !context.worker.running()) {
    return;
  }
  auto promise = std::make_shared<std::promise<std::vector<procfs::Area>>>();
  saved.areas = promise->get_future();
  context.worker.post(
      [promise, pid = task.pid] {
        try {
          promise->set_value(procfs::parse_smaps(procfs::Task(pid).read("smaps")));
        } catch (...) {
          promise->set_exception(std::current_exception());
        }
      },
      0);
}

void save_task(DumpContext& context, FrozenTree& tree, std::size_t index, Collected& all, SavedTask& saved) {
  TaskSaver(context, tree, index, all, saved).save();
}

void save_tree(DumpContext& context, const FrozenTree& tree) {
  auto image = context.images.create(image::type::pstree);
  for (const auto& task : tree.tasks()) {
    const auto stat = procfs::parse_stat(procfs::Task(task.pid).read("stat"));
    const auto name = fmt::format("task {} ({})", task.pid, stat.comm);
    if (stat.pgrp == 0 || stat.session == 0) {
      context.obstacles.emplace_back("cannot dump", name, 0,
                                     "its session or process group is led from outside its pid namespace");
    }
    if (task.ppid == 0 && stat.session != task.pid && !context.options.shell_job) {
      context.obstacles.push_back(no_session_leader(name, stat.session));
    }
    if (stat.terminal != 0) {
      context.note_control(task.pid, stat.session, stat.terminal, stat.foreground);
    }
    images::pstree_entry entry;
    entry.set_pid(static_cast<std::uint32_t>(task.pid));
    entry.set_ppid(static_cast<std::uint32_t>(task.ppid));
    entry.set_pgid(static_cast<std::uint32_t>(stat.pgrp));
    entry.set_sid(static_cast<std::uint32_t>(stat.session));
    for (const auto tid : task.tids) {
      entry.add_threads(static_cast<std::uint32_t>(tid));
    }
    if (task.tids.empty()) {
      entry.add_threads(static_cast<std::uint32_t>(task.pid));
    }
    image.write(entry);
  }
  image.finish();
}

}  // namespace criu::task
