// SPDX-License-Identifier: GPL-2.0-only
// The controlling process is killed at every step it makes. The task has to go on as if nothing had happened.
//
// A step is a boundary of a system call: the test traces the controller and ends it at its N-th one, for all N. All
// that a controller can do to others goes through system calls or through the shared memory between two of them.
#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <compel/compel.hpp>

#include "test_blob.h"
#include "vector_blob.h"
#include "victim.hpp"
#include "workload.hpp"

using test::Board;
using test::Victim;

namespace {

// Everything a controller may do to a process.
void control(pid_t pid, const compel_blob& blob) {
  compel::Tree tree = compel::Tree::freeze(pid);
  compel::Task task = tree.root();
  task.syscall(SYS_getppid);
  const std::vector<pid_t> tids = task.tids();
  task.syscall_in(tids.back(), SYS_gettid);
  compel::Parasite parasite = task.load(blob, 4096);
  parasite.call("count");
  parasite.call_in_threads(tids, "double_it", 0, 8);
  parasite.start();
  parasite.call("count");
  ::close(parasite.give_fd(0));
  parasite.call_in_threads(std::vector<pid_t>(tids.begin() + 1, tids.end()), "double_it", 0, 8);
  parasite.stop();
  parasite.unload();
  tree.release();
}

// Runs `body` in a child up to its step number `step`, and kills it there, after `meanwhile`. False when it came to its
// end before.
bool killed_at(
    long step, const std::function<void()>& body, const std::function<void()>& meanwhile = [] {}) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::ptrace(PTRACE_TRACEME, 0, 0, 0);
    ::raise(SIGSTOP);
    try {
      body();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "controller: %s\n", error.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ::ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
  int signal_number = 0;
  for (long done = 0;;) {
    ::ptrace(PTRACE_SYSCALL, child, 0, signal_number);
    REQUIRE(::waitpid(child, &status, 0) == child);
    if (!WIFSTOPPED(status)) {
      INFO("the controller ended by itself, wait status " << status);
      REQUIRE(status == 0);
      return false;
    }
    signal_number = WSTOPSIG(status) == (SIGTRAP | 0x80) ? 0 : WSTOPSIG(status);
    if (signal_number == 0 && ++done == step) {
      meanwhile();
      ::kill(child, SIGKILL);
      ::waitpid(child, &status, 0);
      return true;
    }
  }
}

int waits_for_signal(Board& board, long number) {
  static volatile sig_atomic_t seen = 0;
  struct sigaction action {};
  action.sa_handler = [](int) { seen = seen + 1; };
  ::sigaction(SIGUSR1, &action, nullptr);
  sigset_t usr1, none;
  ::sigemptyset(&none);
  ::sigemptyset(&usr1);
  ::sigaddset(&usr1, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &usr1, nullptr);
  board.ready++;
  const int result = number == SYS_rt_sigsuspend ? ::sigsuspend(&none)
                     : number == SYS_ppoll       ? ::ppoll(nullptr, 0, nullptr, &none)
                                                 : ::pselect(0, nullptr, nullptr, nullptr, nullptr, &none);
  const bool woken = result == -1 && errno == EINTR && seen == 1;
  ::sigprocmask(SIG_SETMASK, nullptr, &none);
  return woken && ::sigismember(&none, SIGUSR1) == 1 ? 0 : 1;
}

void survives_all_deaths(const compel_blob& blob, long stride) {
  long step = 1;
  for (bool killed = true; killed; step += stride) {
    Victim victim(test::busy_process);
    victim.wait_ready(test::busy_threads + 1);
    killed = killed_at(step, [&] { control(victim.pid(), blob); });
    INFO("killed at step " << step);
    victim.board().released = 1;
    const int result = victim.join();
    REQUIRE(result == 0);
  }
  WARN("the controller was killed at steps up to " << step - stride << ", each " << stride);
}

}  // namespace

// Every fifth of about a thousand; `compel-tests '[every step]'` leaves none out, which takes its time on a busy
// machine.
TEST_CASE("the controller dies at any step", "[death]") { survives_all_deaths(test_blob, 5); }
TEST_CASE("the controller dies at each single step", "[.][every step]") { survives_all_deaths(test_blob, 1); }

TEST_CASE("the controller of a blob with vector code dies at any step", "[death]") {
  survives_all_deaths(vector_blob, 7);
}

// A signal that is blocked but in the call that waits for it: the call must not begin again after its handler has run,
// as it would wait for a second one.
TEST_CASE("a signal meets a wait with a mask of its own when the controller dies", "[death]") {
  const long number = GENERATE(SYS_rt_sigsuspend, SYS_ppoll, SYS_pselect6);
  INFO("system call " << number);
  long step = 1;
  for (bool killed = true; killed; ++step) {
    Victim victim([number](Board& board) { return waits_for_signal(board, number); });
    victim.wait_ready();
    victim.wait_blocked_in(number);
    const auto signal = [&] { ::kill(victim.pid(), SIGUSR1); };
    killed = killed_at(
        step, [&] { control(victim.pid(), test_blob); }, signal);
    if (!killed) {
      signal();
    }
    INFO("killed at step " << step);
    REQUIRE(test::eventually([&] { return test::proc_text(victim.pid(), "stat").find(") Z ") != std::string::npos; }));
    REQUIRE(victim.join() == 0);
  }
  CHECK(step > 100);
}

TEST_CASE("a resident parasite whose master dies takes itself out") {
  const bool busy = GENERATE(false, true);
  const compel_blob& blob = GENERATE(0, 1) == 0 ? test_blob : vector_blob;
  Victim victim(test::busy_process);
  victim.wait_ready(test::busy_threads + 1);
  const std::string before = test::maps(victim.pid());
  Victim controller([&](Board& board) {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    compel::Parasite parasite = tree.root().load(blob, 4096);
    parasite.start();
    parasite.call("count");
    if (busy) {
      parasite.post("spin", 0);
    }
    board.ready++;
    ::pause();
    return 0;
  });
  controller.wait_ready();
  CHECK(test::maps(victim.pid()) != before);
  ::kill(controller.pid(), SIGKILL);
  CHECK(controller.join() == -SIGKILL);
  CHECK(test::eventually([&] { return test::maps(victim.pid()) == before; }));
  CHECK(test::status_line(victim.pid(), "TracerPid") == "0");
  // What the dead one left in the vDSO is no obstacle for the next, and goes with it.
  {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    compel::Parasite parasite = tree.root().load(blob, 4096);
    CHECK(parasite.call("count") == 43);
  }
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}

// Signals for faults are not blocked during a run. One that somebody sends meanwhile is nobody's to lose.
TEST_CASE("a fault signal that is sent during a run arrives as it was sent") {
  const bool dies = GENERATE(false, true);
  static volatile sig_atomic_t handled_value = 0;
  Victim victim([](Board& board) {
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) { handled_value = info->si_value.sival_int; };
    ::sigaction(SIGFPE, &action, nullptr);
    board.ready++;
    while (board.released == 0) {
      ::sched_yield();
    }
    return static_cast<int>(handled_value);
  });
  victim.wait_ready();
  Victim controller([&](Board& board) {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    compel::Parasite parasite = tree.root().load(test_blob, 4096);
    parasite.start();
    sigval value{};
    value.sival_int = 42;
    ::sigqueue(victim.pid(), SIGFPE, value);
    parasite.call("count");
    board.ready++;
    while (dies) {
      ::pause();
    }
    return 0;
  });
  controller.wait_ready();
  if (dies) {
    ::kill(controller.pid(), SIGKILL);
  }
  CHECK(controller.join() == (dies ? -SIGKILL : 0));
  victim.board().released = 1;
  CHECK(victim.join() == 42);
}

TEST_CASE("a handler runs on the way home while the next controller comes") {
  static Board* shared = nullptr;
  const int on_stack = GENERATE(0, SA_ONSTACK);
  Victim victim([on_stack](Board& board) {
    static char stack[65536];
    stack_t alternate{};
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    ::sigaltstack(&alternate, nullptr);
    shared = &board;
    struct sigaction action {};
    action.sa_flags = on_stack;
    action.sa_handler = [](int) {
      shared->values[1] = 1;
      while (shared->values[2] == 0) {
        ::sched_yield();
      }
    };
    ::sigaction(SIGUSR2, &action, nullptr);
    return test::registers_held(board);
  });
  victim.wait_ready();
  Victim controller([&](Board& board) {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    compel::Parasite parasite = tree.root().load(test_blob, 4096);
    parasite.start();
    ::kill(victim.pid(), SIGUSR2);
    board.ready++;
    ::pause();
    return 0;
  });
  controller.wait_ready();
  ::kill(controller.pid(), SIGKILL);
  CHECK(controller.join() == -SIGKILL);
  REQUIRE(test::eventually([&] { return victim.board().values[1] == 1; }));
  control(victim.pid(), test_blob);
  victim.board().values[2] = 1;
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}

TEST_CASE("many dead controllers in a row") {
  Victim victim(test::busy_process);
  victim.wait_ready(test::busy_threads + 1);
  for (long step = 100; step < 1000; step += 37) {
    INFO("step " << step);
    killed_at(step, [&] { control(victim.pid(), test_blob); });
    REQUIRE(test::eventually([&] { return test::status_line(victim.pid(), "TracerPid") == "0"; }));
  }
  CHECK_FALSE(killed_at(1'000'000, [&] { control(victim.pid(), test_blob); }));
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}
