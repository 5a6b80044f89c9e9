// SPDX-License-Identifier: LGPL-2.1-only
#include "task/master.hpp"

#include <fmt/format.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <ctime>
#include <fstream>

#include "base/error.hpp"
#include "log.hpp"
#include "task/objects.hpp"

namespace criu::task {

using base::check;
using base::Error;
using restorer::Stage;

static_assert(sizeof(pthread_mutex_t) <= sizeof(restorer::Gate));

void reap(pid_t killed) {
  int status = 0;
  pid_t reaped = 0;
  do {
    reaped = ::waitpid(killed, &status, __WALL);
  } while (reaped < 0 ? errno == EINTR : WIFSTOPPED(status));
}

Master::Master(RestoreContext& context, Family& family) : context_(context), family_(family) {
  const auto& checkpoint = context.checkpoint;
  const auto slots_at = (sizeof(restorer::Shared) + 63) / 64 * 64;
  const auto regions_at = (slots_at + context.files.slot_count() * sizeof(files::Slot) + 63) / 64 * 64;
  const auto births_at = regions_at + checkpoint.tasks.size() * sizeof(restorer::Region);
  const auto size = births_at + family.size_of_births(checkpoint);
  context.shared_size = (size + memory::page_size - 1) / memory::page_size * memory::page_size;
  void* at = ::mmap(nullptr, context.shared_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) {
    throw Error("map memory shared with the tasks", {}, errno);
  }
  auto* bytes = static_cast<std::byte*>(at);
  context.shared = reinterpret_cast<restorer::Shared*>(bytes);
  context.files.use(reinterpret_cast<files::Slot*>(bytes + slots_at));
  family.regions = reinterpret_cast<restorer::Region*>(bytes + regions_at);
  family.births = reinterpret_cast<Births*>(bytes + births_at);

  pthread_mutexattr_t attributes;
  ::pthread_mutexattr_init(&attributes);
  ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  for (int stage = 0; stage < static_cast<int>(Stage::count); ++stage) {
    ::pthread_mutex_init(gate(static_cast<Stage>(stage)), &attributes);
    ::pthread_mutex_lock(gate(static_cast<Stage>(stage)));
  }
  ::pthread_mutexattr_destroy(&attributes);
  family.expect(checkpoint, *context.shared);

  for (const auto& task : checkpoint.tasks) {
    for (const auto& vma : task->mm.vmas()) {
      context.needed_addresses.push_back({vma.start(), vma.end()});
    }
  }
  // The tasks of a tree lie much alike: once for all, not in each of them.
  memory::merge(context.needed_addresses);
  choose_internal_fds();
  context.inherited = restorer::Inherited::of_this_process();
  last_capability();
}

Master::~Master() {
  if (started_) {
    // All that were born: one that fell out of the tree's shape must go too. Then the root is ours to reap.
    // The end of an init is the end of all in its namespace, where they have their pids.
    auto& births = *family_.births;
    for (std::uint32_t i = 0; !own_pids_ && i < __atomic_load_n(&births.count, __ATOMIC_ACQUIRE); ++i) {
      if (const auto pid = __atomic_load_n(&births.pids()[i], __ATOMIC_ACQUIRE); pid > 0) {
        ::kill(pid, SIGKILL);
      }
    }
    ::kill(root_, SIGKILL);
    reap(root_);
  }
  for (int stage = 0; stage < static_cast<int>(Stage::count); ++stage) {
    open(static_cast<Stage>(stage));
  }
  ::munmap(context_.shared, context_.shared_size);
}

void Master::choose_internal_fds() {
  std::uint32_t highest = 2;
  for (const auto& task : context_.checkpoint.tasks) {
    for (const auto& fd : task->fds) {
      highest = std::max(highest, fd.fd());
    }
  }
  rlimit limit{};
  check(::getrlimit(RLIMIT_NOFILE, &limit), "read the limit on open files");
  limit.rlim_cur = limit.rlim_max;
  check(::setrlimit(RLIMIT_NOFILE, &limit), "raise the limit on open files");
  std::ifstream most("/proc/sys/fs/nr_open");
  std::uint32_t most_open = 1U << 20;
  most >> most_open;
  if (highest >= most_open) {
    throw Error("corrupt checkpoint", fmt::format("descriptor {} is beyond fs.nr_open ({})", highest, most_open), 0);
  }
  context_.first_internal_fd = static_cast<int>(highest) + 1;
  context_.images = image::Directory(context_.internal(context_.images.release()));
  log::move_above(context_.first_internal_fd);
}

pid_t Master::start(bool as_sibling, bool own_pids) {
  own_pids_ = own_pids;
  root_ = give_birth(context_, family_, (as_sibling ? std::uint64_t{CLONE_PARENT} : 0) | (own_pids ? CLONE_NEWPID : 0));
  started_ = true;
  return root_;
}

void Master::check_failure() const {
  const auto* shared = context_.shared;
  if (__atomic_load_n(&shared->failed, __ATOMIC_ACQUIRE) != 2) {
    return;
  }
  std::string text(shared->failure);
  if (shared->failed_pid == 0) {
    throw Error("cannot restore", text, 0);
  }
  throw Error("cannot restore", fmt::format("task {}: {}", shared->failed_pid, text), shared->failed_errno);
}

// A task that crashed cannot say so.
void Master::look_for_dead() const {
  for (const auto& task : context_.checkpoint.tasks) {
    std::ifstream file(fmt::format("/proc/{}/stat", task->pid()));
    std::string text;
    std::getline(file, text);
    const auto comm_end = text.rfind(')');
    if (task->alive() && comm_end != std::string::npos && comm_end + 2 < text.size() &&
        (text[comm_end + 2] == 'Z' || text[comm_end + 2] == 'X')) {
      throw Error("cannot restore", task->name() + " died while it was restored", 0);
    }
  }
}

void Master::await(Stage stage, std::uint32_t arrived) {
  auto* shared = context_.shared;
  const auto index = static_cast<int>(stage);
  for (;;) {
    const auto event = __atomic_load_n(&shared->event, __ATOMIC_ACQUIRE);
    check_failure();
    if (__atomic_load_n(&shared->arrived[index], __ATOMIC_ACQUIRE) >= arrived) {
      LOG_DEBUG("stage {} reached", index);
      return;
    }
    constexpr timespec second{1, 0};
    if (restorer::raw_syscall(SYS_futex, reinterpret_cast<long>(&shared->event), FUTEX_WAIT, event,
                              reinterpret_cast<long>(&second)) == -ETIMEDOUT) {
      look_for_dead();
    }
  }
}

void Master::count(images::restore_stats_entry& stats) const {
  stats.set_pages_restored(context_.shared->pages_restored);
  stats.set_pages_compared(context_.shared->pages_compared);
  stats.set_pages_skipped_cow(context_.shared->pages_skipped_cow);
  stats.set_forking_time(context_.shared->forking_time);
}

void Master::open(Stage stage) {
  auto* word = &context_.shared->gates[static_cast<int>(stage)].word;
  if (!restorer::opened_by_master(stage)) {
    // It may have been opened by force, and a mutex can be unlocked only while its word names its owner. Who looks at
    // it meanwhile is woken below.
    __atomic_store_n(word, static_cast<std::uint32_t>(::gettid()), __ATOMIC_RELEASE);
  }
  ::pthread_mutex_unlock(gate(stage));
  restorer::futex_wake_all(word);
}

}  // namespace criu::task
