// SPDX-License-Identifier: GPL-2.0-only
#include "victims.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <latch>
#include <random>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace bench {

namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t mib = 1 << 20;
// Where a victim finds the descriptor on which it says that it is ready.
constexpr int ready_fd = 3;

constexpr std::array<const char*, 7> names{"random",    "zero",     "untouched",  "threads",
                                           "processes", "mappings", "connections"};

char* map(std::size_t size) {
  void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return at == MAP_FAILED ? nullptr : static_cast<char*>(at);
}

bool fill_random(std::size_t size) {
  char* at = map(size);
  std::mt19937_64 random(4711);
  for (std::size_t i = 0; at != nullptr && i < size; i += sizeof(std::uint64_t)) {
    const auto value = random();
    std::memcpy(at + i, &value, sizeof value);
  }
  return at != nullptr;
}

bool fill_zero(std::size_t size) {
  char* at = map(size);
  for (std::size_t i = 0; at != nullptr && i < size; i += page) {
    // A write, so that each page is one of its own and not the kernel's shared one.
    static_cast<volatile char*>(at)[i] = 0;
  }
  return at != nullptr;
}

bool make_threads(std::size_t count) {
  static std::latch started(static_cast<std::ptrdiff_t>(count));
  for (std::size_t i = 0; i < count; ++i) {
    std::thread([] {
      started.count_down();
      while (true) {
        ::pause();
      }
    }).detach();
  }
  started.wait();
  return true;
}

bool make_processes(std::size_t count) {
  for (std::size_t i = 1; i < count; ++i) {
    const auto pid = ::fork();
    if (pid < 0) {
      return false;
    }
    if (pid == 0) {
      ::close(ready_fd);
      while (true) {
        ::pause();
      }
    }
  }
  return true;
}

bool make_mappings(std::size_t count) {
  // Neighbours differ in what is allowed, so that none are joined.
  char* at = map(count * page);
  for (std::size_t i = 0; at != nullptr && i < count; i += 2) {
    at[i * page] = 1;
    if (::mprotect(at + i * page, page, PROT_READ) != 0) {
      return false;
    }
  }
  return at != nullptr;
}

// Both ends of each, and nothing waits in them.
bool make_own_connections(std::size_t count) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* name = reinterpret_cast<sockaddr*>(&address);
  if (listener < 0 || ::bind(listener, name, size) != 0 || ::listen(listener, 1) != 0 ||
      ::getsockname(listener, name, &size) != 0) {
    return false;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const int client = ::socket(AF_INET, SOCK_STREAM, 0);
    if (client < 0 || ::connect(client, name, size) != 0 || ::accept(listener, nullptr, nullptr) < 0) {
      return false;
    }
  }
  return ::close(listener) == 0;
}

bool make_connections(std::size_t count) {
  constexpr std::size_t spare = 100;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max <= 2 * spare) {
    return false;
  }
  limit.rlim_cur = limit.rlim_max;
  // Some room beside them is for whoever restores.
  const auto each = std::min<std::size_t>((limit.rlim_max - spare) / 2 - spare, 8000);
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return false;
  }
  for (; count > each; count -= each) {
    int ends[2];
    if (::pipe(ends) != 0) {
      return false;
    }
    const auto pid = ::fork();
    if (pid == 0) {
      ::close(ready_fd);
      ::close(ends[0]);
      const char done = make_own_connections(each) ? 1 : 0;
      (void)!::write(ends[1], &done, 1);
      ::close(ends[1]);
      while (true) {
        ::pause();
      }
    }
    ::close(ends[1]);
    char done = 0;
    if (pid < 0 || ::read(ends[0], &done, 1) != 1 || done == 0) {
      return false;
    }
    ::close(ends[0]);
  }
  return make_own_connections(count);
}

bool set_up(const std::string& load, std::size_t amount) {
  if (load == "random") {
    return fill_random(amount * mib);
  }
  if (load == "zero") {
    return fill_zero(amount * mib);
  }
  if (load == "untouched") {
    return amount == 0 || map(amount * mib) != nullptr;
  }
  if (load == "threads") {
    return make_threads(amount);
  }
  if (load == "processes") {
    return make_processes(amount);
  }
  if (load == "connections") {
    return make_connections(amount);
  }
  return load == "mappings" && make_mappings(amount);
}

}  // namespace

int victim_main(const std::string& load, std::size_t amount) {
  if (!set_up(load, amount)) {
    return 1;
  }
  const char ready = 1;
  if (::write(ready_fd, &ready, 1) != 1) {
    return 1;
  }
  ::close(ready_fd);
  while (true) {
    ::pause();
  }
}

pid_t start_victim(Load load, std::size_t amount) {
  int ends[2];
  base::check(::pipe2(ends, O_CLOEXEC), "pipe");
  base::Fd in(ends[0]);
  base::Fd out(ends[1]);
  const auto pid = base::check(::fork(), "fork");
  if (pid == 0) {
    ::setsid();
    const int null = ::open("/dev/null", O_RDWR);
    for (const int fd : {0, 1, 2}) {
      ::dup2(null, fd);
    }
    if (out.get() == ready_fd) {
      ::fcntl(ready_fd, F_SETFD, 0);
    } else {
      ::dup2(out.get(), ready_fd);
    }
    ::close_range(ready_fd + 1, ~0U, 0);
    const auto number = std::to_string(amount);
    ::execl("/proc/self/exe", "bench", "--victim", names[static_cast<std::size_t>(load)], number.c_str(), nullptr);
    ::_exit(127);
  }
  out.reset();
  char ready = 0;
  if (::read(in.get(), &ready, 1) != 1) {
    throw base::Error("victim", names[static_cast<std::size_t>(load)], 0, "it could not be set up");
  }
  return pid;
}

}  // namespace bench
