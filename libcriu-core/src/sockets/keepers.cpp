// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/keepers.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "log.hpp"
#include "sockets/call.hpp"
#include "sockets/soccr_call.hpp"

namespace criu::sockets {

using base::check;
using base::Error;

namespace {

// A tree that was killed in the moment of the dumper's own death is gone by then.
constexpr int dying_ms = 1000;
constexpr int nobody = -1;

bool has_ended(int pidfd, int wait_ms) {
  pollfd poll{pidfd, POLLIN, 0};
  return ::poll(&poll, 1, wait_ms) > 0;
}

// Whoever wakes it is at its end, and tasks that it traced run next.
void go_first() {
  sched_param priority{};
  priority.sched_priority = 1;
  (void)::sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority);  // where that is allowed
}

}  // namespace

// What a keeper and the dumper share. The keeper waits for the mutex, which the dumper has: a word from it comes with
// the unlock. When the dumper dies the kernel hands the mutex on, before it closes the descriptors and lets go of the
// traced tasks.
struct Keepers::Line {
  pthread_mutex_t mutex;
  bool gone = false;  // the word: the tree is, so that silence may fall
  std::atomic<bool> at_the_end = false;
  std::atomic<int> copied = nobody;  // which of the keeper's
  int reuseaddr = 0, oobinline = 0, peek_off = -1;
  char complaint[512] = {};

  Line() {
    pthread_mutexattr_t attributes;
    ::pthread_mutexattr_init(&attributes);
    ::pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    ::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    ::pthread_mutex_init(&mutex, &attributes);
    ::pthread_mutexattr_destroy(&attributes);
    ::pthread_mutex_lock(&mutex);
  }
  void complain(const std::string& text) { std::strncpy(complaint, text.c_str(), sizeof complaint - 1); }
};

struct Keepers::Keeper {
  struct Unmap {
    void operator()(Line* line) const { ::munmap(line, sizeof(Line)); }
  };
  pid_t pid;
  std::unique_ptr<Line, Unmap> line;

  static std::unique_ptr<Line, Unmap> make_line() {
    void* at = ::mmap(nullptr, sizeof(Line), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) {
      throw Error("map memory shared with who keeps connections", {}, errno);
    }
    return std::unique_ptr<Line, Unmap>(new (at) Line);
  }
};

Keepers::Keepers(pid_t root, NetworkLock* lock, bool silent, std::string name, std::string owner)
    : root_(root), lock_(lock), silent_(silent), name_(std::move(name)), owner_(std::move(owner)) {
  tree_.reset(
      static_cast<int>(check(::syscall(SYS_pidfd_open, root, 0), "open pidfd of", fmt::format("task {}", root))));
}

Keepers::~Keepers() { dismiss(false); }

void Keepers::add(std::span<const Met> met, const std::vector<base::Fd>& sockets) {
  auto line = Keeper::make_line();
  // A keyboard's signals are for the dump, and are not to end this.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  const auto pid = ::fork();
  const int error = errno;
  if (pid == 0) {
    keep(*line, met, sockets);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) {
    ::pthread_mutex_unlock(&line->mutex);  // the list of what dies with this thread goes through it
    throw Error("fork who keeps the connections of", fmt::format("task {}", root_), error);
  }
  keepers_.push_back({pid, std::move(line)});
}

void Keepers::keep(Line& line, std::span<const Met> met, const std::vector<base::Fd>& sockets) {
  const bool first = keepers_.empty();  // it has the lock
  try {
    go_first();
    if (lock_ != nullptr) {
      lock_->is_kept();
    }
    const bool died = ::pthread_mutex_lock(&line.mutex) == EOWNERDEAD;
    if (died) {
      take_over(line, met, sockets);
    }
    const bool over = died ? line.at_the_end && has_ended(tree_.get(), dying_ms) : line.gone;
    if (over && first && lock_ != nullptr) {
      lock_->leave(name_, owner_);
    }
    if (over && silent_) {
      fall_silent(met, sockets);
    }
    if (died && first && lock_ != nullptr) {
      lock_->end_for_owner();
    }
  } catch (const std::exception& error) {
    line.complain(error.what());
    ::_exit(1);
  }
  ::_exit(0);
}

void Keepers::take_over(const Line& line, std::span<const Met> met, const std::vector<base::Fd>& sockets) {
  const auto index = line.copied.load();
  if (index == nobody) {
    return;
  }
  const auto& what = met[static_cast<std::size_t>(index)].what;
  const int fd = sockets[static_cast<std::size_t>(index)].get();
  Soccr(fd, what).resume(SOCCR_QUIET);
  set(fd, SOL_SOCKET, SO_REUSEADDR, line.reuseaddr, what);
  set(fd, SOL_SOCKET, SO_OOBINLINE, line.oobinline, what);
  if (line.peek_off >= 0) {
    set(fd, SOL_SOCKET, SO_PEEK_OFF, line.peek_off, what);
  }
}

// In any order: the lock of the dump is there as long as one of us is.
void Keepers::fall_silent(std::span<const Met> met, const std::vector<base::Fd>& sockets) {
  for (std::size_t i = 0; i < met.size(); ++i) {
    Soccr connection(sockets[i].get(), met[i].what);
    connection.hold();
    connection.detach();
  }
}

Keepers::Copying::Copying(Keepers& keepers, std::size_t index, const images::sk_opts_entry& options)
    : keepers_(keepers) {
  auto& line = *keepers.keepers_.back().line;
  line.reuseaddr = options.reuseaddr() ? 1 : 0;
  line.oobinline = options.so_oobinline() != 0 ? 1 : 0;
  line.peek_off = -1;
  for (const auto& other : options.other()) {
    if (other.level() == SOL_SOCKET && other.option() == SO_PEEK_OFF && other.value().size() == sizeof line.peek_off) {
      std::memcpy(&line.peek_off, other.value().data(), sizeof line.peek_off);
    }
  }
  line.copied = static_cast<int>(index);
}

Keepers::Copying::~Copying() { keepers_.keepers_.back().line->copied = nobody; }

void Keepers::at_the_end() {
  for (const auto& keeper : keepers_) {
    keeper.line->at_the_end = true;
  }
}

void Keepers::complete() {
  if (lock_ != nullptr) {
    lock_->is_left();
  }
  dismiss(true);
}

void Keepers::dismiss(bool gone) {
  for (const auto& keeper : keepers_) {
    keeper.line->gone = gone;
    ::pthread_mutex_unlock(&keeper.line->mutex);
  }
  for (const auto& keeper : keepers_) {
    int status = 0;
    while (::waitpid(keeper.pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (gone && status != 0) {
      const auto* complaint = keeper.line->complaint;
      LOG_ERROR("the connections of the tree, which is {}, are not all silent: {}", silent_ ? "gone" : "stopped",
                complaint[0] != '\0' ? complaint : "who kept them was killed");
    }
  }
  keepers_.clear();
}

}  // namespace criu::sockets
