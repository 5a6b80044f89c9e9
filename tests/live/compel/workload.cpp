// SPDX-License-Identifier: GPL-2.0-only
#include "workload.hpp"

#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

namespace {

struct Held {
  std::uint64_t general[16];
  std::uint8_t vectors[32][64];
};
static_assert(offsetof(Held, vectors) == 128);

extern "C" int hold_registers(volatile int* stop, Held* out, long vectors);

std::atomic<int> signals_seen{0};

struct Waiters {
  int pipe_ends[2];
  std::atomic<int> word{0};
};

void complain(test::Board& board, int which) { board.values[0] = which; }

}  // namespace

namespace test {

int registers_held(Board& board) {
  static Held held;
  const long kind = __builtin_cpu_supports("avx512f") ? 2 : __builtin_cpu_supports("avx2") ? 1 : 0;
  const unsigned count = kind == 2 ? 32 : 16, width = kind == 2 ? 64 : kind == 1 ? 32 : 16;
  for (unsigned i = 0; i < count; ++i) {
    std::memset(held.vectors[i], static_cast<int>(i + 1), 64);
  }
  board.ready++;
  hold_registers(reinterpret_cast<volatile int*>(&board.released), &held, kind);
  constexpr std::uint64_t ones = 0x0101010101010101, factors[] = {1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15, 16};
  for (unsigned i = 0; i < 14; ++i) {
    if (held.general[i] != ones * factors[i]) {
      return 10 + static_cast<int>(i);
    }
  }
  for (unsigned i = 0; i < count; ++i) {
    for (unsigned at = 0; at < width; ++at) {
      if (held.vectors[i][at] != i + 1) {
        return 40 + static_cast<int>(i);
      }
    }
  }
  return kind == 2 && held.general[14] != 0x1234 ? 30 : 0;
}

int busy_process(Board& board) {
  static Waiters on;
  if (::pipe(on.pipe_ends) != 0) {
    return 90;
  }
  struct sigaction action {};
  action.sa_handler = [](int) { signals_seen++; };
  ::sigaction(SIGUSR1, &action, nullptr);
  sigset_t usr1, before;
  ::sigemptyset(&usr1);
  ::sigaddset(&usr1, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &usr1, &before);
  const auto waiting = [&board](int which, const std::function<bool()>& wait) {
    return std::thread([&board, which, wait] {
      board.ready++;
      if (!wait()) {
        complain(board, which);
      }
    });
  };
  std::vector<std::thread> threads;
  threads.push_back(waiting(1, [&] {
    while (board.released == 0) {
      if (::syscall(SYS_futex, &board.released, FUTEX_WAIT, 0, nullptr, nullptr, 0) != 0 && errno != EAGAIN) {
        return false;
      }
    }
    return true;
  }));
  threads.push_back(waiting(2, [&] {
    while (board.released == 0) {
      const timespec time{0, 10'000'000};
      const long begin = now_ms();
      if (::nanosleep(&time, nullptr) != 0 || now_ms() - begin < 9) {
        return false;
      }
    }
    return true;
  }));
  threads.push_back(waiting(3, [&] {
    while (board.released == 0) {
      const long begin = now_ms();
      if (::poll(nullptr, 0, 10) != 0 || now_ms() - begin < 9) {
        return false;
      }
    }
    return true;
  }));
  threads.push_back(waiting(4, [&] {
    char byte = 0;
    return ::read(on.pipe_ends[0], &byte, 1) == 1 && byte == 'x';
  }));
  threads.push_back(waiting(5, [&] {
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      while (board.released == 0) {
        ::syscall(SYS_futex, &board.released, FUTEX_WAIT, 0, nullptr, nullptr, 0);
      }
      ::_exit(3);
    }
    int status = 0;
    return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 3;
  }));
  threads.push_back(waiting(6, [&] {
    sigset_t none;
    ::sigemptyset(&none);
    sigset_t mask;
    const bool woken = ::sigsuspend(&none) == -1 && errno == EINTR && signals_seen == 1;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    return woken && ::sigismember(&mask, SIGUSR1) == 1;
  }));
  threads.push_back(waiting(7, [&] {
    long sum = 0;
    while (board.released == 0) {
      sum += ::getpid() == static_cast<pid_t>(::syscall(SYS_getpid)) ? 0 : 1;
    }
    return sum == 0;
  }));
  const int held = registers_held(board);
  ::syscall(SYS_futex, &board.released, FUTEX_WAKE, 1000, nullptr, nullptr, 0);
  if (::write(on.pipe_ends[1], "x", 1) != 1) {
    return 91;
  }
  ::pthread_kill(threads[5].native_handle(), SIGUSR1);
  for (std::thread& thread : threads) {
    thread.join();
  }
  sigset_t now;
  ::sigprocmask(SIG_SETMASK, nullptr, &now);
  if (::sigismember(&now, SIGUSR1) != 1 || ::sigismember(&now, SIGUSR2) != 0 || ::sigismember(&now, SIGTERM) != 0) {
    return 92;
  }
  return held != 0 ? held : static_cast<int>(board.values[0]);
}

}  // namespace test
