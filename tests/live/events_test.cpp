// SPDX-License-Identifier: GPL-2.0-only
// eventfd, epoll, signalfd, timerfd, memfd.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <string>

#include "harness/live.hpp"

using namespace live;

namespace {

constexpr long hour = 3600;

void add(int epoll, int fd, std::uint32_t events, std::uint64_t data) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  REQUIRE(::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

// What is ready: the data of the one event; 0 for none, all ones for several.
std::uint64_t ready(int epoll) {
  std::array<epoll_event, 8> events{};
  const auto count = ::epoll_wait(epoll, events.data(), events.size(), 0);
  return count == 0 ? 0 : count == 1 ? events[0].data.u64 : ~std::uint64_t{0};
}

std::uint64_t read_counter(int fd) {
  std::uint64_t value = 0;
  return ::read(fd, &value, sizeof value) == sizeof value ? value : 0;
}

}  // namespace

LIVE_TEST("events: eventfd with its counter, plain and semaphore") {
  const int plain = ::eventfd(5, EFD_NONBLOCK);
  const int semaphore = ::eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
  const int single = ::eventfd(1, EFD_SEMAPHORE | EFD_NONBLOCK);
  const int spent = ::eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK);
  const int empty = ::eventfd(0, EFD_NONBLOCK);
  REQUIRE(plain >= 0 && semaphore >= 0 && single >= 0 && spent >= 0 && empty >= 0);
  checkpoint_here();
  CHECK_EQ(read_counter(plain), 5U);
  CHECK_EQ(read_counter(plain), 0U);
  CHECK_EQ(errno, EAGAIN);
  CHECK_EQ(read_counter(semaphore), 1U);
  CHECK_EQ(read_counter(semaphore), 1U);
  CHECK_EQ(read_counter(semaphore), 0U);
  CHECK_EQ(read_counter(single), 1U);
  CHECK_EQ(read_counter(single), 0U);
  for (const int fd : {spent, empty}) {
    CHECK_EQ(read_counter(fd), 0U);
    const std::uint64_t three = 3;
    CHECK_EQ(::write(fd, &three, sizeof three), static_cast<ssize_t>(sizeof three));
    CHECK_EQ(read_counter(fd), fd == spent ? 1U : 3U);
  }
}

LIVE_TEST("events: epoll with its targets, their events and data") {
  const int epoll = ::epoll_create1(0);
  const int event = ::eventfd(0, 0);
  int ends[2];
  REQUIRE(epoll >= 0 && event >= 0 && ::pipe(ends) == 0);
  add(epoll, event, EPOLLIN, 0x1111222233334444);
  add(epoll, ends[0], EPOLLIN | EPOLLONESHOT, 22);
  checkpoint_here();
  CHECK_EQ(ready(epoll), 0U);
  const std::uint64_t one = 1;
  CHECK_EQ(::write(event, &one, sizeof one), 8);
  CHECK_EQ(ready(epoll), 0x1111222233334444U);
  CHECK_EQ(read_counter(event), 1U);
  CHECK_EQ(::write(ends[1], "x", 1), 1);
  CHECK_EQ(ready(epoll), 22U);
  CHECK_EQ(ready(epoll), 0U);  // one shot
}

LIVE_TEST("events: edge-triggered epoll") {
  const int epoll = ::epoll_create1(0);
  int ends[2];
  REQUIRE(epoll >= 0 && ::pipe(ends) == 0);
  add(epoll, ends[0], EPOLLIN | EPOLLET, 7);
  checkpoint_here();
  CHECK_EQ(::write(ends[1], "x", 1), 1);
  CHECK_EQ(ready(epoll), 7U);
  CHECK_EQ(ready(epoll), 0U);
  CHECK_EQ(::write(ends[1], "y", 1), 1);
  CHECK_EQ(ready(epoll), 7U);
}

LIVE_TEST("events: epoll in epoll") {
  const int outer = ::epoll_create1(0);
  const int inner = ::epoll_create1(0);
  const int event = ::eventfd(0, 0);
  REQUIRE(outer >= 0 && inner >= 0 && event >= 0);
  add(inner, event, EPOLLIN, 1);
  add(outer, inner, EPOLLIN, 2);
  checkpoint_here();
  CHECK_EQ(ready(outer), 0U);
  const std::uint64_t one = 1;
  CHECK_EQ(::write(event, &one, sizeof one), 8);
  CHECK_EQ(ready(outer), 2U);
  CHECK_EQ(ready(inner), 1U);
}

LIVE_TEST("events: epoll with a target known by two numbers") {
  const int epoll = ::epoll_create1(0);
  const int event = ::eventfd(1, 0);
  const int twin = ::dup(event);
  REQUIRE(epoll >= 0 && twin >= 0);
  add(epoll, event, 0, 1);
  add(epoll, twin, EPOLLIN, 2);
  checkpoint_here();
  CHECK_EQ(ready(epoll), 2U);
}

LIVE_TEST("events: epoll with a target that is closed here and open elsewhere") {
  const int epoll = ::epoll_create1(0);
  const int event = ::eventfd(1, 0);
  const int twin = ::fcntl(event, F_DUPFD, 100);
  REQUIRE(epoll >= 0 && event >= 0 && twin == 100);
  add(epoll, event, EPOLLIN, 9);
  REQUIRE(::close(event) == 0);  // the description lives on at 100, and so does the epoll entry for the old number
  checkpoint_here();
  CHECK_EQ(ready(epoll), 9U);
}

LIVE_TEST("events: signalfd") {
  sigset_t mask;
  ::sigemptyset(&mask);
  ::sigaddset(&mask, SIGUSR2);
  ::sigaddset(&mask, SIGRTMIN + 6);
  REQUIRE(::sigprocmask(SIG_BLOCK, &mask, nullptr) == 0);
  const int fd = ::signalfd(-1, &mask, SFD_NONBLOCK);
  REQUIRE(fd >= 0);
  REQUIRE(::sigqueue(::getpid(), SIGRTMIN + 6, sigval{.sival_int = 12}) == 0);
  checkpoint_here();
  signalfd_siginfo info{};
  CHECK_EQ(::read(fd, &info, sizeof info), static_cast<ssize_t>(sizeof info));
  CHECK_EQ(info.ssi_signo, static_cast<unsigned>(SIGRTMIN + 6));
  CHECK_EQ(info.ssi_int, 12);
  CHECK_EQ(::read(fd, &info, sizeof info), -1);
  ::raise(SIGUSR2);
  CHECK_EQ(::read(fd, &info, sizeof info), static_cast<ssize_t>(sizeof info));
}

LIVE_TEST("events: timerfd armed, disarmed and expired") {
  const int armed = ::timerfd_create(CLOCK_MONOTONIC, 0);
  const int disarmed = ::timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
  const int expired = ::timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK);
  REQUIRE(armed >= 0 && disarmed >= 0 && expired >= 0);
  const itimerspec far{{5, 6}, {hour, 0}};
  const itimerspec near{{0, 0}, {0, 1}};
  REQUIRE(::timerfd_settime(armed, 0, &far, nullptr) == 0);
  REQUIRE(::timerfd_settime(expired, 0, &near, nullptr) == 0);
  checkpoint_here();
  itimerspec left{};
  CHECK_EQ(::timerfd_gettime(armed, &left), 0);
  CHECK(left.it_value.tv_sec > hour - 300 && left.it_value.tv_sec <= hour);
  CHECK_EQ(left.it_interval.tv_nsec, 6);
  CHECK_EQ(::timerfd_gettime(disarmed, &left), 0);
  CHECK_EQ(left.it_value.tv_sec, 0);
  CHECK_EQ(read_counter(expired), 1U);
}

LIVE_TEST("events: memfd with contents, offset and seals, shared and mapped") {
  const int fd = ::memfd_create("live", MFD_ALLOW_SEALING);
  REQUIRE(fd >= 0);
  REQUIRE(::ftruncate(fd, 8192) == 0);
  REQUIRE(::pwrite(fd, "memory", 6, 4096) == 6);
  void* mapped = ::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(mapped != MAP_FAILED);
  REQUIRE(::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
  REQUIRE(::lseek(fd, 4097, SEEK_SET) == 4097);
  Child child([fd] {
    checkpoint_here();
    CHECK_EQ(::pwrite(fd, "M", 1, 4096), 1);
  });
  checkpoint_here();
  CHECK_EQ(::fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
  std::array<char, 5> rest{};
  CHECK_EQ(::read(fd, rest.data(), 5), 5);
  CHECK_EQ(std::memcmp(rest.data(), "emory", 5), 0);
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(std::memcmp(static_cast<char*>(mapped) + 4096, "Memory", 6), 0);
}

LIVE_TEST("events: timerfd on clocks that wake the machine, at a moment, and with many expirations") {
  const int moment = ::timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK);
  const int many = ::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  const int alarm = ::timerfd_create(CLOCK_BOOTTIME_ALARM, TFD_NONBLOCK);  // -1 where nothing could wake it
  REQUIRE(moment >= 0 && many >= 0);
  timespec now{};
  REQUIRE(::clock_gettime(CLOCK_REALTIME, &now) == 0);
  const itimerspec at{{0, 0}, {now.tv_sec + hour, 0}};
  const itimerspec often{{0, 1000000}, {0, 1}};
  const itimerspec far{{7, 0}, {hour, 0}};
  REQUIRE(::timerfd_settime(moment, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &at, nullptr) == 0);
  REQUIRE(::timerfd_settime(many, 0, &often, nullptr) == 0);
  const bool alarmed = alarm >= 0 && ::timerfd_settime(alarm, 0, &far, nullptr) == 0;
  await(
      [&] {
        timespec later{};
        ::clock_gettime(CLOCK_REALTIME, &later);
        return (later.tv_sec - now.tv_sec) * 1000 + (later.tv_nsec - now.tv_nsec) / 1000000 > 10;
      },
      "it expires ten times");
  checkpoint_here();
  CHECK(read_counter(many) >= 10);  // what has gone by before, though the timer stops when nobody reads it
  itimerspec left{};
  CHECK_EQ(::timerfd_gettime(many, &left), 0);
  CHECK_EQ(left.it_interval.tv_nsec, 1000000);
  CHECK_EQ(::timerfd_gettime(moment, &left), 0);
  CHECK(left.it_value.tv_sec > hour - 300 && left.it_value.tv_sec <= hour);
  if (alarmed) {
    CHECK_EQ(::timerfd_gettime(alarm, &left), 0);
    CHECK(left.it_value.tv_sec > hour - 300 && left.it_interval.tv_sec == 7);
  }
}

LIVE_TEST("events: memfd sealed against writing, mapped for all and for one") {
  const int sealed = ::memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC);
  REQUIRE(sealed >= 0 && ::write(sealed, "for good", 8) == 8);
  REQUIRE(::fcntl(sealed, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
  const auto* view = static_cast<const char*>(::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, sealed, 0));
  auto* own = static_cast<char*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, sealed, 0));
  REQUIRE(view != MAP_FAILED && own != MAP_FAILED);
  own[0] = 'F';
  checkpoint_here();
  CHECK_EQ(::fcntl(sealed, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  CHECK_EQ(std::string(view, 8), "for good");
  CHECK_EQ(std::string(own, 8), "For good");
  CHECK_EQ(::pwrite(sealed, "x", 1, 0), -1);
}

LIVE_TEST("events: memfd without a descriptor, mapped by two tasks") {
  const int fd = ::memfd_create("only mapped", 0);
  REQUIRE(fd >= 0 && ::ftruncate(fd, 8192) == 0);
  auto* at = static_cast<char*>(::mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  REQUIRE(at != MAP_FAILED && ::close(fd) == 0);
  at[0] = 'm';
  Child child([at] {
    checkpoint_here();
    CHECK_EQ(at[0], 'm');
    at[4096] = 'c';
  });
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(at[4096], 'c');
}
