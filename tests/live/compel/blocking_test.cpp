// SPDX-License-Identifier: GPL-2.0-only
// Every kind of blocking call: frozen, entered, and let go again, it must go on as if nothing had been, and take the
// time it was asked to.
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <compel/compel.hpp>

#include "test_blob.h"
#include "victim.hpp"

using test::Board;
using test::now_ms;
using test::Victim;

namespace {

constexpr long span = 250;       // of each timed wait, in ms
constexpr long allowance = 150;  // how late a wait may end on a busy machine

enum Intrusion { only_freeze, system_call, parasite, resident, twice };

// What a debugger might do to a task; takes at least 60 ms.
void intrude(pid_t pid, Intrusion kind) {
  const long begin = now_ms();
  compel::Tree tree = compel::Tree::freeze(pid);
  compel::Task task = tree.root();
  if (kind == system_call) {
    CHECK(task.syscall(SYS_getpid) == pid);
  } else if (kind == parasite) {
    CHECK(task.load(test_blob, 64).call("ids") == 7);
  } else if (kind == resident) {
    compel::Parasite inside = task.load(test_blob, 64);
    inside.start();
    CHECK(inside.call("ids") == 7);
    inside.stop();
  }
  while (now_ms() - begin < 60) {
    CHECK(test::proc_text(pid, "stat").find(") t ") != std::string::npos);
    ::usleep(10'000);
  }
  tree.release();
}

// `again`: the number it shows when it waits once more.
void intrude_all(const Victim& victim, long number, long again) {
  const auto kind = GENERATE(only_freeze, system_call, parasite, resident, twice);
  INFO("intrusion " << kind);
  victim.wait_ready();
  victim.wait_blocked_in(number);
  intrude(victim.pid(), kind);
  if (kind == twice) {
    victim.wait_blocked_in(again);
    intrude(victim.pid(), parasite);
  }
}

// 0: `wait` returned true after `span` ms.
template <typename Wait>
int timed(Board& board, Wait wait) {
  const long begin = now_ms();
  board.ready++;
  if (!wait()) {
    return 1;
  }
  const long took = now_ms() - begin;
  board.values[0] = took;
  return took < span - 1 ? 2 : took > span + allowance ? 3 : 0;
}

std::atomic<int> handled{0};

void handle(int number) {
  struct sigaction action {};
  action.sa_handler = [](int) { handled++; };
  ::sigaction(number, &action, nullptr);
}

}  // namespace

TEST_CASE("nanosleep") {
  Victim victim([](Board& board) {
    return timed(board, [] {
      const timespec time{0, span * 1'000'000};
      return ::nanosleep(&time, nullptr) == 0;
    });
  });
  // glibc calls clock_nanosleep; interrupted once it is restart_syscall's, and shows as that.
  victim.wait_ready();
  const auto kind = GENERATE(only_freeze, system_call, parasite, resident, twice);
  victim.wait_blocked_in(SYS_clock_nanosleep);
  intrude(victim.pid(), kind);
  if (kind == twice) {
    victim.wait_blocked_in(SYS_restart_syscall);
    intrude(victim.pid(), parasite);
  }
  CHECK(victim.join() == 0);
}

TEST_CASE("poll with a timeout") {
  Victim victim([](Board& board) { return timed(board, [] { return ::poll(nullptr, 0, span) == 0; }); });
  victim.wait_ready();
  const auto kind = GENERATE(only_freeze, system_call, parasite, resident);
  victim.wait_blocked_in(SYS_poll);
  intrude(victim.pid(), kind);
  CHECK(victim.join() == 0);
}

TEST_CASE("select and ppoll with a timeout") {
  const bool select = GENERATE(true, false);
  Victim victim([select](Board& board) {
    return timed(board, [select] {
      if (select) {
        timeval time{0, span * 1000};
        return ::select(0, nullptr, nullptr, nullptr, &time) == 0;
      }
      const timespec time{0, span * 1'000'000};
      sigset_t none;
      ::sigemptyset(&none);
      return ::ppoll(nullptr, 0, &time, &none) == 0;
    });
  });
  victim.wait_ready();
  const auto kind = GENERATE(only_freeze, system_call, parasite, resident);
  victim.wait_blocked_in(select ? SYS_pselect6 : SYS_ppoll);
  intrude(victim.pid(), kind);
  CHECK(victim.join() == 0);
}

TEST_CASE("futex with and without a timeout") {
  const bool timeout = GENERATE(true, false);
  Victim victim([timeout](Board& board) {
    if (timeout) {
      return timed(board, [&board] {
        const timespec time{0, span * 1'000'000};
        return ::syscall(SYS_futex, &board.released, FUTEX_WAIT, 0, &time, nullptr, 0) == -1 && errno == ETIMEDOUT;
      });
    }
    board.ready++;
    return ::syscall(SYS_futex, &board.released, FUTEX_WAIT, 0, nullptr, nullptr, 0) == 0 && board.released == 1 ? 0
                                                                                                                 : 1;
  });
  intrude_all(victim, SYS_futex, timeout ? SYS_restart_syscall : SYS_futex);
  if (!timeout) {
    victim.wait_blocked_in(SYS_futex);
    victim.board().released = 1;
    ::syscall(SYS_futex, &victim.board().released, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  }
  CHECK(victim.join() == 0);
}

TEST_CASE("read on a pipe") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  Victim victim([&](Board& board) {
    char byte = 0;
    board.ready++;
    return ::read(ends[0], &byte, 1) == 1 && byte == 'x' ? 0 : 1;
  });
  intrude_all(victim, SYS_read, SYS_read);
  CHECK(::write(ends[1], "x", 1) == 1);
  CHECK(victim.join() == 0);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("waitpid, with the child frozen too") {
  Victim victim([](Board& board) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (board.released == 0) {
        ::syscall(SYS_futex, &board.released, FUTEX_WAIT, 0, nullptr, nullptr, 0);
      }
      ::_exit(9);
    }
    board.ready++;
    int status = 0;
    return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 9 ? 0 : 1;
  });
  intrude_all(victim, SYS_wait4, SYS_wait4);
  victim.board().released = 1;
  ::syscall(SYS_futex, &victim.board().released, FUTEX_WAKE, 1, nullptr, nullptr, 0);
  CHECK(victim.join() == 0);
}

TEST_CASE("sigsuspend and pause") {
  const bool suspend = GENERATE(true, false);
  Victim victim([suspend](Board& board) {
    handle(SIGUSR1);
    sigset_t none, usr1, now;
    ::sigemptyset(&none);
    ::sigemptyset(&usr1);
    ::sigaddset(&usr1, SIGUSR1);
    if (!suspend) {
      board.ready++;
      return ::pause() == -1 && errno == EINTR && handled == 1 ? 0 : 1;
    }
    ::sigprocmask(SIG_BLOCK, &usr1, nullptr);
    board.ready++;
    if (::sigsuspend(&none) != -1 || errno != EINTR || handled != 1) {
      return 1;
    }
    ::sigprocmask(SIG_SETMASK, nullptr, &now);
    return ::sigismember(&now, SIGUSR1) == 1 && ::sigismember(&now, SIGUSR2) == 0 ? 0 : 2;
  });
  const bool while_frozen = GENERATE(false, true);
  victim.wait_ready();
  victim.wait_blocked_in(suspend ? SYS_rt_sigsuspend : SYS_pause);
  if (while_frozen) {
    // The signal comes while a parasite is inside; it is to be delivered afterwards, and to end the wait.
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    std::uint64_t mask = tree.root().signal_mask(victim.pid());
    CHECK(((mask >> (SIGUSR1 - 1)) & 1) == (suspend ? 1 : 0));
    compel::Parasite inside = tree.root().load(test_blob, 64);
    inside.start();
    ::kill(victim.pid(), SIGUSR1);
    CHECK(inside.call("ids") == 7);
    inside.unload();
    tree.release();
  } else {
    intrude(victim.pid(), GENERATE(only_freeze, system_call, parasite, resident));
    victim.wait_blocked_in(suspend ? SYS_rt_sigsuspend : SYS_pause);
    ::kill(victim.pid(), SIGUSR1);
  }
  CHECK(victim.join() == 0);
}

TEST_CASE("accept, flock and a FIFO being opened") {
  const int which = GENERATE(0, 1, 2);
  char name[] = "/tmp/compel-test-XXXXXX";
  REQUIRE(::mkdtemp(name) != nullptr);
  const std::string path = std::string(name) + "/file";
  int listening = -1;
  if (which == 0) {
    listening = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_storage any{};
    any.ss_family = AF_UNIX;
    REQUIRE(::bind(listening, reinterpret_cast<sockaddr*>(&any), sizeof(sa_family_t)) == 0);
    REQUIRE(::listen(listening, 1) == 0);
  } else if (which == 2) {
    REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  }
  const int locked = which == 1 ? ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
  if (which == 1) {
    REQUIRE(::flock(locked, LOCK_EX) == 0);
  }
  Victim victim([&](Board& board) {
    board.ready++;
    if (which == 0) {
      return ::accept(listening, nullptr, nullptr) >= 0 ? 0 : 1;
    }
    const int fd = ::open(path.c_str(), O_RDONLY);
    return fd >= 0 && (which == 2 || ::flock(fd, LOCK_EX) == 0) ? 0 : 2;
  });
  victim.wait_ready();
  const auto kind = GENERATE(only_freeze, system_call, parasite, resident);
  const long calls[] = {SYS_accept, SYS_flock, SYS_openat};
  victim.wait_blocked_in(calls[which]);
  intrude(victim.pid(), kind);
  victim.wait_blocked_in(calls[which]);
  if (which == 0) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    ::getsockname(listening, reinterpret_cast<sockaddr*>(&address), &size);
    const int other = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(::connect(other, reinterpret_cast<sockaddr*>(&address), size) == 0);
    ::close(other);
  } else if (which == 1) {
    ::flock(locked, LOCK_UN);
  } else {
    const int other = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    CHECK(other >= 0);
    ::close(other);
  }
  CHECK(victim.join() == 0);
  ::close(listening);
  ::close(locked);
  ::unlink(path.c_str());
  ::rmdir(name);
}

TEST_CASE("blocked and pending signals stay as they are") {
  Victim victim([](Board& board) {
    handle(SIGUSR1);
    handle(SIGRTMIN + 1);
    sigset_t all, before;
    ::sigfillset(&all);
    ::sigprocmask(SIG_SETMASK, &all, &before);
    board.ready++;
    while (board.released == 0) {
      ::sched_yield();
    }
    if (handled != 0) {
      return 1;
    }
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    return handled == 4 ? 0 : 2;  // SIGUSR1 counts once, the other three times
  });
  victim.wait_ready();
  const auto send = [&](int number) {
    sigval value{};
    ::sigqueue(victim.pid(), number, value);
  };
  send(SIGUSR1);
  send(SIGRTMIN + 1);
  const std::string before = test::status_line(victim.pid(), "ShdPnd");
  {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    compel::Parasite inside = tree.root().load(test_blob, 64);
    inside.start();
    send(SIGUSR1);
    send(SIGRTMIN + 1);
    inside.call("ids");
    CHECK(test::status_line(victim.pid(), "ShdPnd") == before);
  }
  send(SIGRTMIN + 1);
  CHECK(test::status_line(victim.pid(), "ShdPnd") == before);
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}

TEST_CASE("signals that come during a run are delivered after it, in their order") {
  static std::vector<int> order;
  Victim victim([](Board& board) {
    for (const int number : {SIGUSR1, SIGTERM, SIGRTMIN + 2, SIGRTMIN + 1}) {
      struct sigaction action {};
      ::sigfillset(&action.sa_mask);
      action.sa_handler = [](int which) { order.push_back(which); };
      ::sigaction(number, &action, nullptr);
    }
    order.reserve(64);
    board.ready++;
    while (board.released == 0) {
      ::sched_yield();
    }
    // The kernel takes the smallest number first.
    return order == std::vector<int>{SIGUSR1, SIGTERM, SIGRTMIN + 1, SIGRTMIN + 1, SIGRTMIN + 2} ? 0 : 1;
  });
  victim.wait_ready();
  {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    compel::Parasite inside = tree.root().load(test_blob, 64);
    inside.start();
    for (const int number : {SIGRTMIN + 2, SIGRTMIN + 1, SIGTERM, SIGUSR1, SIGRTMIN + 1}) {
      ::sigqueue(victim.pid(), number, sigval{});
    }
    inside.call("ids");
  }
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}
