// SPDX-License-Identifier: GPL-2.0-only
// What tasks have in common by clone(2), and threads have apart by unshare(2).
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

#include "harness/live.hpp"

using namespace live;

namespace {

// A task that shares with this one what the flags say, asleep in pause. In 64 KiB of its own for a stack, for those
// that share the memory.
pid_t clone_asleep(int flags) {
  constexpr std::size_t size = 64 << 10;
  auto* stack =
      static_cast<char*>(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0));
  REQUIRE(stack != MAP_FAILED);
  const auto body = [](void*) {
    for (;;) {
      ::syscall(SYS_pause);
    }
    return 0;
  };
  const pid_t pid = ::clone(body, stack + size, flags | SIGCHLD, nullptr);
  REQUIRE(pid > 0);
  await_syscall(pid, SYS_pause);
  return pid;
}

void end(pid_t pid) {
  CHECK_EQ(::kill(pid, SIGKILL), 0);
  CHECK_EQ(::waitpid(pid, nullptr, 0), pid);
}

// A thread that did something to itself, and waits at the checkpoint.
class Apart {
 public:
  explicit Apart(int flags) {
    thread_ = std::thread([this, flags] {
      result_ = ::unshare(flags) == 0 ? 1 : -1;
      while (go_ == 0) {
        ::sched_yield();
      }
    });
    await([this] { return result_ != 0; }, "the thread is apart");
    REQUIRE(result_ == 1);
  }
  void finish() {
    go_ = 1;
    thread_.join();
  }

 private:
  std::atomic<int> result_{0};
  std::atomic<int> go_{0};
  std::thread thread_;
};

}  // namespace

LIVE_TEST("sharing: a table of descriptors") {
  const pid_t other = clone_asleep(CLONE_FILES);
  const int before = ::open("/dev/null", O_RDONLY);
  REQUIRE(before >= 0);
  checkpoint_here();
  const int after = ::open("/dev/zero", O_RDONLY);
  REQUIRE(after >= 0);
  std::string target(64, '\0');
  const auto link = "/proc/" + std::to_string(other) + "/fd/" + std::to_string(after);
  const auto size = ::readlink(link.c_str(), target.data(), target.size());
  CHECK_EQ(target.substr(0, size < 0 ? 0 : static_cast<std::size_t>(size)), "/dev/zero");
  end(other);
}

LIVE_TEST("sharing: memory is refused by name", {.dump_fails = "shares its memory with task"}) {
  const pid_t other = clone_asleep(CLONE_VM);
  checkpoint_here();
  end(other);
}

LIVE_TEST("sharing: signal actions are refused by name", {.dump_fails = "shares its memory with task"}) {
  const pid_t other = clone_asleep(CLONE_VM | CLONE_SIGHAND);
  checkpoint_here();
  end(other);
}

LIVE_TEST("sharing: the working directory and umask are refused by name",
          {.dump_fails = "shares its working directory and umask with task"}) {
  const pid_t other = clone_asleep(CLONE_FS);
  checkpoint_here();
  end(other);
}

LIVE_TEST("sharing: a thread with descriptors of its own is refused by name",
          {.dump_fails = "has descriptors of its own"}) {
  Apart thread(CLONE_FILES);
  checkpoint_here();
  thread.finish();
}

LIVE_TEST("sharing: a thread with a directory of its own is refused by name",
          {.dump_fails = "has a working directory and umask of its own"}) {
  Apart thread(CLONE_FS);
  checkpoint_here();
  thread.finish();
}
