// SPDX-License-Identifier: GPL-2.0-only
#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "kernel/procfs_fd.hpp"

using namespace criu::kernel;

TEST_CASE("fdinfo: the lines that every descriptor has") {
  const auto info = parse_fdinfo("pos:\t4\nflags:\t02100002\nmnt_id:\t26\nino:\t10977026\n");
  CHECK(info.pos == 4);
  CHECK(info.flags == 02100002);
  CHECK(info.mnt_id == 26);
  CHECK(info.ino == 10977026);
  CHECK(parse_fdinfo("pos:\t-1\nflags:\t02\nmnt_id:\t-1\nino:\t1\n").mnt_id == -1);
  CHECK(parse_fdinfo("").flags == 0);
  CHECK_THROWS_AS(parse_fdinfo("pos:\tx\n"), base::Error);
}

TEST_CASE("fdinfo: lines of a kind") {
  const std::string_view text =
      "pos:\t0\nflags:\t02\nclockid: 1\nticks: 3\nsettime flags: 01\nit_value: (3598, 482880100)\nit_interval: (3600, "
      "0)\n"
      "eventfd-count:       fffffffffffffffe\nsigmask:\t0000000000000800\n";
  CHECK(number(text, "clockid") == 1);
  CHECK(number(text, "settime flags", 8) == 1);
  CHECK(number(text, "eventfd-count", 16) == 0xfffffffffffffffe);
  CHECK(number(text, "sigmask", 16) == 0x800);
  CHECK(time(text, "it_value").seconds == 3598);
  CHECK(time(text, "it_value").nanoseconds == 482880100);
  CHECK(field(text, "tick") == std::nullopt);
  CHECK_THROWS_AS(number(text, "missing"), base::Error);
  CHECK_THROWS_AS(time(text, "ticks"), base::Error);
  CHECK_THROWS_AS(time("it_value:\n", "it_value"), base::Error);
  CHECK_THROWS_AS(time("it_value: (1\n", "it_value"), base::Error);
}

TEST_CASE("fdinfo: what epoll watches") {
  const auto targets = epoll_targets(
      "pos:\t0\nflags:\t02\n"
      "tfd:       13 events:       19 data:     7f60d000000d  pos:0 ino:40e sdev:10\n"
      "tfd:        9 events: 80000019 data: ffffffffffffffff  pos:12 ino:21b32a sdev:f\n");
  REQUIRE(targets.size() == 2);
  CHECK(targets[0].fd == 13);
  CHECK(targets[0].data == 0x7f60d000000d);
  CHECK(targets[1].events == 0x80000019);
  CHECK(targets[1].data == ~std::uint64_t{0});
  CHECK(targets[1].pos == 12);
  CHECK(targets[1].ino == 0x21b32a);
  CHECK(targets[1].dev == 0xf);
  CHECK_THROWS_AS(epoll_targets("tfd: 1 events: x\n"), base::Error);
}
