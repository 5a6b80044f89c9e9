// SPDX-License-Identifier: LGPL-2.1-only
// What of a tree cannot be dumped, found out while it runs on.
#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>

#include "check.hpp"
#include "files/collect.hpp"
#include "image/scratch.hpp"
#include "memory/dump.hpp"
#include "namespaces/net.hpp"
#include "task/ids.hpp"

namespace criu {

using base::Error;

namespace {

// Tasks may come and go while they are looked at; who is gone is in nobody's way.
bool gone(const Error& error) { return error.code() == ESRCH || error.code() == ENOENT; }

std::vector<pid_t> tids_of(pid_t pid) {
  std::vector<pid_t> tids;
  std::error_code ignored;  // whoever ends meanwhile is in nobody's way
  for (const auto& entry : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), ignored)) {
    tids.push_back(static_cast<pid_t>(std::stoi(entry.path().filename())));
  }
  return tids;
}

// By the program it runs: its registers are not to be seen without stopping it.
bool is_32_bit(const procfs::Task& proc) {
  const auto program = proc.open("exe", O_RDONLY);
  unsigned char head[EI_NIDENT] = {};
  return ::pread(program.get(), head, sizeof head, 0) == sizeof head && head[EI_CLASS] == ELFCLASS32;
}

class Look {
 public:
  Look(DumpContext& context, const namespaces::Home& home, pid_t root)
      : context_(context), home_(home), root_(root), files_(context), ids_(home.ours()) {
    context.mounts = home.own_mounts() ? &home.mount_sources() : nullptr;
    context.users = &home.users();
    context.net_ns_id = ids_.number_of(home.theirs().at("net"));
    context.namespaces = &ids_.namespaces();
  }

  void tree() {
    task(root_);
    files_.finish();
  }

 private:
  void task(pid_t pid) {
    const procfs::Task proc(pid);
    context_.tasks.insert(pid);
    const auto stat = procfs::parse_stat(proc.read("stat"));
    const auto name = fmt::format("task {} ({})", pid, stat.comm);
    const auto tids = tids_of(pid);
    if (stat.state != 'Z') {
      alive(proc, stat, name, tids);
    } else if (tids.size() > 1) {
      context_.obstacles.push_back(task::leader_ended(name));
    } else if (pid == root_) {
      context_.obstacles.emplace_back("cannot dump", name, 0, "it is a zombie");
    }
    if (pid == root_ && stat.session != pid && !context_.options.shell_job) {
      context_.obstacles.push_back(task::no_session_leader(name, stat.session));
    }
    if (stat.terminal != 0) {
      context_.note_control(pid, stat.session, stat.terminal, stat.foreground);
    }
    for (const auto tid : tids) {
      children(proc, tid);
    }
  }
  // Each thread has those that it made itself.
  void children(const procfs::Task& proc, pid_t tid) {
    std::istringstream children;
    try {
      children.str(proc.read(fmt::format("task/{}/children", tid).c_str()));
    } catch (const Error& error) {
      if (!gone(error)) {
        throw;
      }
    }
    for (pid_t child = 0; children >> child;) {
      try {
        task(child);
      } catch (const Error& error) {
        if (!gone(error)) {
          context_.obstacles.push_back(error);
        }
      }
    }
  }

  // What is known of a task's threads from outside; the rest is found out when the tree is frozen.
  void threads(const procfs::Task& proc, const std::string& name, const std::vector<pid_t>& tids) {
    for (const auto tid : tids) {
      if (const auto what = task::apart_from_process(proc.pid(), tid); !what.empty()) {
        context_.obstacles.push_back(task::apart(name, tid, what));
      }
      if (const auto policy = ::sched_getscheduler(tid); policy >= 0 && !task::is_known_policy(policy)) {
        context_.obstacles.push_back(task::unknown_policy(tid, policy));
      }
    }
  }

  void alive(const procfs::Task& proc, const procfs::Stat& stat, const std::string& name,
             const std::vector<pid_t>& tids) {
    if (is_32_bit(proc)) {
      context_.obstacles.push_back(task::is_32_bit(name));
      return;
    }
    const auto status = procfs::parse_status(proc.read("status"));
    if (status.tracer != 0 && status.tracer != ::getpid()) {
      context_.obstacles.emplace_back("cannot dump", name, 0, fmt::format("it is traced by task {}", status.tracer));
    }
    const auto ids = ids_.of(proc.pid(), proc);
    if (const auto which = task::namespaces_apart(ids, ids_.root(), ids_.own()); !which.empty()) {
      context_.obstacles.push_back(task::other_namespaces(name, which));
    }
    if (const auto what = ids_.in_common(proc.pid(), stat.ppid); !what.empty()) {
      context_.obstacles.push_back(task::shares(name, what));
    }
    threads(proc, name, tids);
    if (home_.own_mounts()) {
      home_.mount_sources().note(proc);
    }
    files_.collect_table(proc.pid(), ids.files_id());
    for (const char* link : {"exe", "cwd", "root"}) {
      context_.attempt([&] { files_.reference(proc, link); });
    }
    images::mm_entry mm;
    memory::save_areas(context_, files_, proc, procfs::parse_smaps(proc.read("smaps")), mm);
  }

  DumpContext& context_;
  const namespaces::Home& home_;
  pid_t root_;
  files::Collector files_;
  task::Ids ids_;
};

}  // namespace

std::vector<std::string> obstacles(const Options& options) {
  const image::ScratchDirectory scratch;
  const image::Directory images(scratch.path());
  const namespaces::Home home(options.tree);
  const auto all = home.visit(
      [&](pid_t root) {
        DumpContext context{.options = options, .images = images, .look_only = true, .obstacles = {}};
        Look(context, home, root).tree();
        namespaces::save_net(context, home);
        std::string text;
        for (const auto& obstacle : context.obstacles) {
          if (!gone(obstacle)) {
            text += std::string(obstacle.what()) + '\0';
          }
        }
        return text;
      },
      [](const outside::Request&) { return std::string(); });
  std::vector<std::string> lines;
  for (std::size_t at = 0, end = 0; (end = all.find('\0', at)) != std::string::npos; at = end + 1) {
    lines.push_back(all.substr(at, end - at));
  }
  return lines;
}

}  // namespace criu
