// SPDX-License-Identifier: GPL-2.0-only
// eventfd, signalfd, timerfd, epoll.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <ctime>
#include <map>

#include "scene.hpp"

using scene::Scene;

namespace {

std::uint64_t take(int fd) {
  std::uint64_t value = 0;
  MUST(::read(fd, &value, sizeof value) == sizeof value);
  return value;
}

void move(int from, int to) {
  MUST(::dup2(from, to) == to);
  ::close(from);
}

void watch(int epoll, int fd, std::uint32_t events, std::uint64_t data) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  MUST(::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

std::map<std::uint64_t, std::uint32_t> events_of(int epoll) {
  epoll_event events[16];
  const int count = ::epoll_wait(epoll, events, 16, 0);
  MUST(count >= 0);
  std::map<std::uint64_t, std::uint32_t> result;
  for (int i = 0; i < count; ++i) {
    result[events[i].data.u64] = events[i].events;
  }
  return result;
}

}  // namespace

TEST_CASE("eventfd: counter, semaphore, flags") {
  Scene scene({{[] {
                  MUST(::eventfd(5, EFD_CLOEXEC) == 0);
                  MUST(::eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK) == 1);
                  MUST(::eventfd(0, 0) == 2);
                  const std::uint64_t much = 0xfffffffffffffffe;
                  MUST(::write(2, &much, sizeof much) == sizeof much);
                  MUST(::eventfd(0, EFD_NONBLOCK) == 3);
                },
                [] {
                  MUST(take(0) == 5);
                  MUST(take(1) == 1 && take(1) == 1 && take(1) == 1);
                  std::uint64_t value = 0;
                  MUST(::read(1, &value, sizeof value) < 0 && errno == EAGAIN);
                  MUST(take(2) == 0xfffffffffffffffe);
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
}

TEST_CASE("signalfd: its mask") {
  Scene scene({{[] {
                  sigset_t mask;
                  sigemptyset(&mask);
                  sigaddset(&mask, SIGUSR2);
                  sigaddset(&mask, SIGRTMAX);
                  MUST(::signalfd(-1, &mask, SFD_NONBLOCK) == 0);
                },
                [] {
                  sigset_t mask;
                  sigemptyset(&mask);
                  sigaddset(&mask, SIGRTMAX);
                  ::sigprocmask(SIG_BLOCK, &mask, nullptr);
                  ::raise(SIGRTMAX);
                  signalfd_siginfo info{};
                  MUST(::read(0, &info, sizeof info) == sizeof info &&
                       info.ssi_signo == static_cast<unsigned>(SIGRTMAX));
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
}

TEST_CASE("timerfd: what is left, interval, absolute, unread expirations") {
  Scene scene({{[] {
                  const itimerspec hour{{60, 5}, {3600, 0}};
                  MUST(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC) == 0);
                  MUST(::timerfd_settime(0, 0, &hour, nullptr) == 0);
                  timespec now{};
                  ::clock_gettime(CLOCK_REALTIME, &now);
                  const itimerspec later{{0, 0}, {now.tv_sec + 1000, now.tv_nsec}};
                  MUST(::timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK) == 1);
                  MUST(::timerfd_settime(1, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &later, nullptr) == 0);
                  MUST(::timerfd_create(CLOCK_BOOTTIME, 0) == 2);
                  const itimerspec soon{{0, 0}, {0, 1}};
                  MUST(::timerfd_settime(2, 0, &soon, nullptr) == 0);
                  pollfd expired{2, POLLIN, 0};
                  MUST(::poll(&expired, 1, 5000) == 1);
                  MUST(::timerfd_create(CLOCK_MONOTONIC, 0) == 3);
                },
                [] {
                  itimerspec left{};
                  MUST(::timerfd_gettime(0, &left) == 0 && left.it_interval.tv_sec == 60 &&
                       left.it_interval.tv_nsec == 5);
                  MUST(left.it_value.tv_sec > 3500 && left.it_value.tv_sec < 3600);
                  MUST(::timerfd_gettime(1, &left) == 0 && left.it_value.tv_sec > 900 && left.it_value.tv_sec <= 1000);
                  MUST(take(2) == 1);
                  MUST(::timerfd_gettime(3, &left) == 0 && left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
}

TEST_CASE("epoll: masks, data, nesting, edges") {
  Scene scene({{[] {
                  int ends[2];
                  MUST(::pipe(ends) == 0 && ends[0] == 0 && ends[1] == 1);
                  MUST(::write(1, "x", 1) == 1);
                  MUST(::eventfd(1, 0) == 2);
                  MUST(::epoll_create1(EPOLL_CLOEXEC) == 3);
                  MUST(::epoll_create1(0) == 4);
                  watch(3, 0, EPOLLIN | EPOLLET, 0x1111222233334444);
                  watch(3, 2, EPOLLIN | EPOLLONESHOT, 2);
                  watch(3, 1, EPOLLOUT | EPOLLEXCLUSIVE, 3);
                  watch(4, 3, EPOLLIN, 4);
                  watch(4, 2, EPOLLIN, 5);
                },
                [] {
                  const auto outer = events_of(4);
                  MUST(outer.contains(4) && outer.contains(5));
                  auto first = events_of(3);
                  MUST(first.size() == 3 && first.at(0x1111222233334444) == EPOLLIN && first.at(2) == EPOLLIN &&
                       first.at(3) == EPOLLOUT);
                  first = events_of(3);
                  MUST(first.size() == 1 && first.contains(3));
                  MUST(::epoll_ctl(3, EPOLL_CTL_DEL, 2, nullptr) == 0);
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
}

TEST_CASE("epoll: numbers that were closed or mean something else now") {
  Scene scene({{[] {
                  MUST(::eventfd(1, 0) == 0);
                  MUST(::epoll_create1(0) == 1);
                  MUST(::eventfd(1, 0) == 2);
                  watch(1, 2, EPOLLIN, 22);
                  move(2, 7);                  // watched as 2, here as 7
                  MUST(::eventfd(0, 0) == 2);  // and 2 means another,
                  watch(1, 2, EPOLLIN, 23);    // which is watched, too
                  MUST(::eventfd(1, 0) == 3);
                  watch(1, 3, EPOLLIN, 33);
                },
                [] {
                  const auto events = events_of(1);
                  MUST(events.size() == 2 && events.contains(22) && events.contains(33));
                  const std::uint64_t one = 1;
                  MUST(::write(2, &one, sizeof one) == sizeof one);
                  MUST(events_of(1).contains(23));
                  MUST(::epoll_ctl(1, EPOLL_CTL_DEL, 2, nullptr) == 0);
                  MUST(!events_of(1).contains(23) && events_of(1).contains(22));
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
}

TEST_CASE("epoll: a target that only another process still has") {
  Scene scene({{[] { MUST(::eventfd(1, 0) == 0); }, [] { MUST(take(0) == 1); }},
               {[] {
                  MUST(::epoll_create1(0) == 1);
                  watch(1, 0, EPOLLIN, 33);
                  ::close(0);
                  MUST(::eventfd(7, 0) == 0);
                  watch(1, 0, EPOLLIN, 34);
                },
                [] {
                  // The other one reads from its counter, at once or later; this one's own is there in any case.
                  MUST(events_of(1).contains(34));
                  MUST(take(0) == 7);
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
}

TEST_CASE("epoll: a target that is outside of the tree is named") {
  int pair[2];
  REQUIRE(::pipe(pair) == 0);
  Scene scene({{[&] {
                  MUST(::epoll_create1(0) == 0);
                  // Reaching into the test's own pipe gives a description of its own, so the pipe end itself is
                  // fetched.
                  const int pidfd = static_cast<int>(::syscall(434, ::getppid(), 0));
                  MUST(pidfd >= 0);
                  const int fetched = static_cast<int>(::syscall(438, pidfd, pair[0], 0));
                  MUST(fetched >= 0);
                  watch(0, fetched, EPOLLIN, 1);
                  ::close(fetched);
                  ::close(pidfd);
                },
                [] {}}});
  const auto texts = scene.dump();
  REQUIRE(texts.size() == 1);
  CHECK_THAT(texts[0], Catch::Contains("outside of the tree"));
  ::close(pair[0]);
  ::close(pair[1]);
}

TEST_CASE("thousands of descriptors are no matter of seconds") {
  Scene scene({{[] {
                  int fd = 0;
                  for (int i = 0; i < 1000; ++i) {
                    MUST(::eventfd(1, 0) == fd++);
                    MUST(::open("/dev/null", O_RDWR) == fd++);
                    int ends[2];
                    MUST(::pipe(ends) == 0);
                    fd += 2;
                  }
                },
                [] { MUST(take(3996) == 1); }}});
  const auto began = std::chrono::steady_clock::now();
  CHECK(scene.dump().empty());
  const auto ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - began).count();
  WARN("4000 descriptors were collected in " << ms << " ms");
  scene.restore();
}
