// SPDX-License-Identifier: GPL-2.0-only
// The shape of the tree: parents, groups, sessions, the dead and the stopped.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "harness/live.hpp"

using namespace live;

LIVE_TEST("tree: pids and parents") {
  const pid_t me = ::getpid();
  const pid_t parent = ::getppid();
  Child child([&] {
    const pid_t own = ::getpid();
    checkpoint_here();
    CHECK_EQ(::getpid(), own);
    CHECK_EQ(::getppid(), me);
  });
  checkpoint_here();
  CHECK_EQ(::getpid(), me);
  CHECK_EQ(::getppid(), parent);
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("tree: grandchildren") {
  Child child([] {
    Child grandchild([] {
      const pid_t parent = ::getppid();
      checkpoint_here();
      CHECK_EQ(::getppid(), parent);
    });
    checkpoint_here();
    CHECK_EQ(grandchild.finish(), 0);
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("tree: process groups") {
  Child leader([] {
    REQUIRE(::setpgid(0, 0) == 0);
    checkpoint_here();
    CHECK_EQ(::getpgrp(), ::getpid());
  });
  Child member([&] {
    REQUIRE(::setpgid(0, leader.pid()) == 0);
    checkpoint_here();
    CHECK_EQ(::getpgrp(), leader.pid());
  });
  checkpoint_here();
  CHECK_EQ(::getpgid(member.pid()), leader.pid());
  CHECK_EQ(member.finish(), 0);
  CHECK_EQ(leader.finish(), 0);
}

LIVE_TEST("tree: a process group whose leader is gone") {
  Child leader([] {
    REQUIRE(::setpgid(0, 0) == 0);
    checkpoint_here();
  });
  const pid_t group = leader.pid();
  Child member([&] {
    REQUIRE(::setpgid(0, group) == 0);
    checkpoint_here();
    CHECK_EQ(::getpgrp(), group);
  });
  REQUIRE(leader.finish() == 0);
  checkpoint_here();
  CHECK_EQ(::getpgid(member.pid()), group);
  CHECK_EQ(member.finish(), 0);
}

LIVE_TEST("tree: sessions") {
  const pid_t session = ::getsid(0);
  Child own([] {
    REQUIRE(::setsid() == ::getpid());
    Child member([] {
      checkpoint_here();
      CHECK_EQ(::getsid(0), ::getppid());
    });
    checkpoint_here();
    CHECK_EQ(::getsid(0), ::getpid());
    CHECK_EQ(member.finish(), 0);
  });
  Child inherited([&] {
    checkpoint_here();
    CHECK_EQ(::getsid(0), session);
  });
  checkpoint_here();
  CHECK_EQ(::getsid(own.pid()), own.pid());
  CHECK_EQ(own.finish(), 0);
  CHECK_EQ(inherited.finish(), 0);
}

LIVE_TEST("tree: a session whose leader is gone") {
  REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  const pid_t leader = ::fork();
  if (leader == 0) {
    ::setsid();
    if (::fork() == 0) {
      checkpoint_here();
      ::_exit(::getsid(0) == std::atoi(read_text(scratch("session")).c_str()) ? 0 : 1);
    }
    ::_exit(0);
  }
  REQUIRE(::waitpid(leader, nullptr, 0) == leader);
  const int fd = ::open(scratch("session").c_str(), O_WRONLY | O_CREAT, 0644);
  const auto text = std::to_string(leader);
  REQUIRE(::write(fd, text.data(), text.size()) > 0);
  REQUIRE(::close(fd) == 0);
  const pid_t orphan = std::atoi(read_text("/proc/thread-self/children").c_str());
  REQUIRE(orphan > 0);
  await_syscall(orphan, SYS_rt_sigsuspend);
  checkpoint_here();
  CHECK_EQ(::getsid(orphan), leader);
  CHECK_EQ(::kill(orphan, SIGUSR1), 0);
  int status = -1;
  CHECK_EQ(::waitpid(orphan, &status, 0), orphan);
  CHECK_EQ(status, 0);
}

LIVE_TEST("tree: zombies keep their exit codes") {
  const pid_t exited = ::fork();
  if (exited == 0) {
    ::_exit(42);
  }
  const pid_t killed = ::fork();
  if (killed == 0) {
    ::raise(SIGKILL);
  }
  await([&] { return state_of(exited) == 'Z' && state_of(killed) == 'Z'; }, "both are zombies");
  checkpoint_here();
  int status = 0;
  CHECK_EQ(::waitpid(exited, &status, 0), exited);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 42);
  CHECK_EQ(::waitpid(killed, &status, 0), killed);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGKILL);
}

LIVE_TEST("tree: a stopped task stays stopped, and goes on when continued") {
  // In no sigsuspend: its mask is the task's until it is stopped, and again when it goes on, but not in between.
  Child child(
      [] {
        REQUIRE(::signal(SIGUSR2, [](int) {}) != SIG_ERR);
        CHECK_EQ(::pause(), -1);
      },
      [](pid_t pid) { await_syscall(pid, SYS_pause); });
  REQUIRE(::kill(child.pid(), SIGSTOP) == 0);
  int status = 0;
  REQUIRE(::waitpid(child.pid(), &status, WUNTRACED) == child.pid());
  checkpoint_here();
  CHECK_EQ(state_of(child.pid()), 'T');
  CHECK_EQ(::kill(child.pid(), SIGCONT), 0);
  CHECK_EQ(::waitpid(child.pid(), &status, WCONTINUED), child.pid());
  CHECK(WIFCONTINUED(status));
  await_syscall(child.pid(), SYS_pause);
  CHECK_EQ(::kill(child.pid(), SIGUSR2), 0);
  CHECK_EQ(child.join(), 0);
}

LIVE_TEST("tree: an orphan that a subreaper in the tree adopted") {
  REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  const pid_t parent = ::fork();
  if (parent == 0) {
    if (::fork() == 0) {
      checkpoint_here();
      ::_exit(0);
    }
    ::_exit(0);
  }
  REQUIRE(::waitpid(parent, nullptr, 0) == parent);
  const pid_t orphan = std::atoi(read_text("/proc/thread-self/children").c_str());
  REQUIRE(orphan > 0);
  await_syscall(orphan, SYS_rt_sigsuspend);
  checkpoint_here();
  CHECK_EQ(status_field("PPid", orphan), std::to_string(::getpid()));
  CHECK_EQ(::kill(orphan, SIGUSR1), 0);
  CHECK_EQ(::waitpid(orphan, nullptr, 0), orphan);
  int subreaper = 0;
  CHECK_EQ(::prctl(PR_GET_CHILD_SUBREAPER, &subreaper), 0);
  CHECK_EQ(subreaper, 1);
}

LIVE_TEST("tree: name, parent-death signal, no_new_privs, timer slack, dumpable, THP") {
  REQUIRE(::prctl(PR_SET_NAME, "renamed task") == 0);
  REQUIRE(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  REQUIRE(::prctl(PR_SET_TIMERSLACK, 123456) == 0);
  REQUIRE(::prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
  Child child(
      [] {
        REQUIRE(::prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0);
        REQUIRE(::prctl(PR_SET_DUMPABLE, 0) == 0);
        checkpoint_here();
        int signal = 0;
        CHECK_EQ(::prctl(PR_GET_PDEATHSIG, &signal), 0);
        CHECK_EQ(signal, SIGUSR2);
        CHECK_EQ(::prctl(PR_GET_DUMPABLE), 0);
      },
      [](pid_t pid) { await([pid] { return state_of(pid) == 'S'; }, "the child sleeps"); });
  checkpoint_here();
  CHECK_EQ(read_text("/proc/self/comm"), "renamed task\n");
  CHECK_EQ(::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
  CHECK_EQ(::prctl(PR_GET_TIMERSLACK), 123456);
  CHECK_EQ(::prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
  CHECK_EQ(::prctl(PR_GET_DUMPABLE), 1);
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("tree: a zombie that leads a session, and one that leads a group of the living") {
  const pid_t session = ::fork();
  if (session == 0) {
    ::setsid();
    ::_exit(3);
  }
  const pid_t leader = ::fork();
  if (leader == 0) {
    ::setpgid(0, 0);
    ::pause();
  }
  await_syscall(leader, SYS_pause);
  Child member([leader] {
    REQUIRE(::setpgid(0, leader) == 0);
    checkpoint_here();
    CHECK_EQ(::getpgrp(), leader);
  });
  REQUIRE(::kill(leader, SIGKILL) == 0);
  await([&] { return state_of(session) == 'Z' && state_of(leader) == 'Z'; }, "both are zombies");
  checkpoint_here();
  CHECK_EQ(::getpgid(member.pid()), leader);
  CHECK_EQ(::getsid(session), session);
  CHECK_EQ(member.finish(), 0);
  int status = 0;
  CHECK_EQ(::waitpid(session, &status, 0), session);
  CHECK_EQ(WEXITSTATUS(status), 3);
  CHECK_EQ(::waitpid(leader, &status, 0), leader);
  CHECK_EQ(WTERMSIG(status), SIGKILL);
}

LIVE_TEST("tree: an orphan in the session of another branch") {
  REQUIRE(::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  Child leader([&] {
    REQUIRE(::setsid() == ::getpid());
    const pid_t between = ::fork();
    if (between == 0) {
      const pid_t orphan = ::fork();
      if (orphan == 0) {
        ::pause();
      }
      REQUIRE(::write(ends[1], &orphan, sizeof orphan) == sizeof orphan);
      ::_exit(0);
    }
    REQUIRE(::waitpid(between, nullptr, 0) == between);
    checkpoint_here();
  });
  pid_t orphan = 0;
  REQUIRE(::read(ends[0], &orphan, sizeof orphan) == sizeof orphan);
  await_syscall(orphan, SYS_pause);
  checkpoint_here();
  CHECK_EQ(::getsid(orphan), leader.pid());
  CHECK_EQ(status_field("PPid", orphan), std::to_string(::getpid()));
  CHECK_EQ(::kill(orphan, SIGKILL), 0);
  CHECK_EQ(::waitpid(orphan, nullptr, 0), orphan);
  CHECK_EQ(leader.finish(), 0);
}

LIVE_TEST("tree: stopped with all its threads, by a signal of the terminal") {
  Child child(
      [] {
        ::setpgid(0, 0);  // in a group without a parent in the same session such signals do nothing
        std::thread thread([] { ::pause(); });
        ::pause();
      },
      [](pid_t pid) {
        await_syscall(pid, SYS_pause);
        await([pid] { return status_field("Threads", pid) == "2"; }, "the thread is there");
        for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
          await_syscall(std::stoi(thread.path().filename()), SYS_pause);
        }
      });
  REQUIRE(::kill(child.pid(), SIGTSTP) == 0);
  int status = 0;
  REQUIRE(::waitpid(child.pid(), &status, WUNTRACED) == child.pid());
  REQUIRE(WSTOPSIG(status) == SIGTSTP);
  checkpoint_here();
  CHECK_EQ(state_of(child.pid()), 'T');
  CHECK_EQ(::kill(child.pid(), SIGCONT), 0);
  await_syscall(child.pid(), SYS_pause);
  CHECK_EQ(::kill(child.pid(), SIGKILL), 0);
  CHECK_EQ(child.join(), SIGKILL);
}

LIVE_TEST("tree: a stopped process does not run before it is continued, with none of its threads") {
  constexpr int threads = 16;
  auto* counts = static_cast<volatile std::uint64_t*>(
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  REQUIRE(counts != MAP_FAILED);
  Child child(
      [counts] {
        std::vector<std::thread> all;
        all.reserve(threads);
        for (int i = 0; i < threads; ++i) {
          all.emplace_back([counts, i] {
            for (;;) {
              counts[i] = counts[i] + 1;
            }
          });
        }
        ::pause();
      },
      [counts](pid_t) {
        for (int i = 0; i < threads; ++i) {
          await([counts, i] { return counts[i] > 0; }, "all threads run");
        }
      });
  REQUIRE(::kill(child.pid(), SIGSTOP) == 0);
  int status = 0;
  REQUIRE(::waitpid(child.pid(), &status, WUNTRACED) == child.pid());
  const std::vector<std::uint64_t> before(counts, counts + threads);
  checkpoint_here();
  CHECK_EQ(state_of(child.pid()), 'T');
  for (int i = 0; i < threads; ++i) {
    CHECK_EQ(counts[i], before[static_cast<std::size_t>(i)]);
  }
  CHECK_EQ(::kill(child.pid(), SIGCONT), 0);
  await([&] { return counts[0] > before[0]; }, "it runs again");
  CHECK_EQ(::kill(child.pid(), SIGKILL), 0);
  CHECK_EQ(child.join(), SIGKILL);
}

LIVE_TEST("tree: a process stays stopped whose group has lost its job control") {
  Child child(
      [] {
        REQUIRE(::setpgid(0, 0) == 0);
        ::pause();
      },
      [](pid_t pid) { await_syscall(pid, SYS_pause); });
  REQUIRE(::kill(child.pid(), SIGTSTP) == 0);
  int status = 0;
  REQUIRE(::waitpid(child.pid(), &status, WUNTRACED) == child.pid());
  // Without a parent in another group of its session SIGTSTP would be ignored; and it is stopped all the same.
  REQUIRE(::setpgid(child.pid(), ::getpgrp()) == 0);
  checkpoint_here();
  CHECK_EQ(state_of(child.pid()), 'T');
  CHECK_EQ(::kill(child.pid(), SIGKILL), 0);
  CHECK_EQ(child.join(), SIGKILL);
}

LIVE_TEST("tree: a child whose end is told by another signal, or by none") {
  const auto start = [](unsigned long signal) {
    const auto pid = static_cast<pid_t>(::syscall(SYS_clone, signal, nullptr, nullptr, nullptr, nullptr));
    if (pid == 0) {
      for (;;) {
        ::syscall(SYS_pause);
      }
    }
    REQUIRE(pid > 0);
    await_syscall(pid, SYS_pause);
    return pid;
  };
  const pid_t other = start(SIGUSR2);
  const pid_t silent = start(0);
  sigset_t usr2;
  ::sigemptyset(&usr2);
  ::sigaddset(&usr2, SIGUSR2);
  REQUIRE(::sigprocmask(SIG_BLOCK, &usr2, nullptr) == 0);
  checkpoint_here();
  CHECK_EQ(::kill(silent, SIGKILL), 0);
  CHECK_EQ(::waitpid(silent, nullptr, __WCLONE), silent);
  siginfo_t info{};
  timespec limit{0, 0};
  CHECK_EQ(::sigtimedwait(&usr2, &info, &limit), -1);
  CHECK_EQ(::kill(other, SIGKILL), 0);
  limit.tv_sec = 10;
  CHECK_EQ(::sigtimedwait(&usr2, &info, &limit), SIGUSR2);
  CHECK_EQ(info.si_pid, other);
  CHECK_EQ(::waitpid(other, nullptr, __WCLONE), other);
}

LIVE_TEST("tree: a process whose first thread has ended is refused by name", {.dump_fails = "first thread has ended"}) {
  Child child(
      [] {
        static std::thread thread([] {
          for (;;) {
            ::pause();
          }
        });
        ::syscall(SYS_exit, 0);
      },
      [](pid_t pid) {
        await([pid] { return state_of(pid) == 'Z'; }, "the first thread has ended");
        for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
          if (const auto tid = std::stoi(thread.path().filename()); tid != pid) {
            await_syscall(tid, SYS_pause);
          }
        }
      });
  checkpoint_here();
  CHECK_EQ(status_field("Threads", child.pid()), "2");
  CHECK_EQ(::kill(child.pid(), SIGKILL), 0);
  CHECK_EQ(child.join(), SIGKILL);
}
