// SPDX-License-Identifier: GPL-2.0-only
#include "victim.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int workers = 4;
constexpr std::size_t words = (2 << 20) / sizeof(std::uint64_t);

std::atomic<const char*> bad{nullptr};
std::atomic<long> steps[workers];

void expect(bool condition, const char* what) {
  if (!condition) {
    bad = what;
  }
}

// Every word of some megabytes depends on the step that wrote it.
void remember(std::vector<std::uint64_t>& memory, long step) {
  const auto before = static_cast<std::uint64_t>(step) * 0x9e3779b97f4a7c15;
  const auto now = static_cast<std::uint64_t>(step + 1) * 0x9e3779b97f4a7c15;
  for (std::size_t i = 0; i < memory.size(); ++i) {
    expect(memory[i] == (before ^ i), "memory");
    memory[i] = now ^ i;
  }
}

void sleep_a_little() {
  const timespec time{0, 1'000'000};
  expect(::nanosleep(&time, nullptr) == 0, "nanosleep");
}

// Answers each byte with its successor.
[[noreturn]] void child_main(int in, int out) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::uint8_t byte = 0;
  while (::read(in, &byte, 1) == 1) {
    ++byte;
    if (::write(out, &byte, 1) != 1) {
      break;
    }
  }
  ::_exit(1);
}

void report(const std::string& directory, const std::string& text) {
  const auto name = directory + "/report";
  const int fd = ::open((name + ".new").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  [[maybe_unused]] const auto written = ::write(fd, text.data(), text.size());
  ::close(fd);
  ::rename((name + ".new").c_str(), name.c_str());
}

}  // namespace

int worker_main(const std::string& directory) {
  sigset_t usr1;
  ::sigemptyset(&usr1);
  ::sigaddset(&usr1, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &usr1, nullptr);
  int question[2], answer[2];
  if (::pipe(question) != 0 || ::pipe(answer) != 0) {
    return 1;
  }
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(question[1]);
    ::close(answer[0]);
    child_main(question[0], answer[1]);
  }
  // A file without a name: a ghost, which a restore has to make and to remove again.
  const auto ghost_path = directory + "/gone";
  const int ghost = ::open(ghost_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  ::unlink(ghost_path.c_str());

  std::vector<std::thread> threads;
  const auto work = [&threads](int which, const std::function<void(long)>& step) {
    threads.emplace_back([which, step] {
      while (true) {
        step(steps[which]);
        ++steps[which];
      }
    });
  };
  std::vector<std::uint64_t> memory(words);
  for (std::size_t i = 0; i < words; ++i) {
    memory[i] = i;
  }
  work(0, [&](long step) {
    remember(memory, step);
    sleep_a_little();  // the machine is for the tests that run beside this one, too
  });
  work(1, [](long) { sleep_a_little(); });
  work(2, [&](long step) {
    auto byte = static_cast<std::uint8_t>(step);
    expect(::write(question[1], &byte, 1) == 1, "write to a pipe");
    std::uint8_t got = 0;
    expect(::read(answer[0], &got, 1) == 1 && got == static_cast<std::uint8_t>(byte + 1), "answer of the child");
    sleep_a_little();
  });
  work(3, [&](long step) {
    long was = 0;
    expect(step == 0 || (::pread(ghost, &was, sizeof was, 0) == sizeof was && was == step), "file without a name");
    was = step + 1;
    expect(::pwrite(ghost, &was, sizeof was, 0) == sizeof was, "write to the file without a name");
    sleep_a_little();
  });

  report(directory, "ready");
  while (true) {
    int signal = 0;
    if (::sigwait(&usr1, &signal) != 0) {
      continue;
    }
    // All of them have to get on from here, or the one who asked waits in vain.
    for (auto& step : steps) {
      for (const long from = step; step < from + 3;) {
        sleep_a_little();
      }
    }
    const char* what = bad;
    report(directory, what == nullptr ? "ok" : std::string("BAD ") + what);
  }
}
