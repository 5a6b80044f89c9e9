// SPDX-License-Identifier: GPL-2.0-only
// Who a task is, and what it may.
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>

#include "harness/live.hpp"

using namespace live;

namespace {

using Caps = std::array<__user_cap_data_struct, 2>;

Caps capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  Caps caps{};
  REQUIRE(::syscall(SYS_capget, &header, caps.data()) == 0);
  return caps;
}

void set_capabilities(Caps caps) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  REQUIRE(::syscall(SYS_capset, &header, caps.data()) == 0);
}

bool same(const Caps& a, const Caps& b) {
  return a[0].effective == b[0].effective && a[0].permitted == b[0].permitted && a[0].inheritable == b[0].inheritable &&
         a[1].effective == b[1].effective && a[1].permitted == b[1].permitted && a[1].inheritable == b[1].inheritable;
}

// Not libc's wrappers, which change every thread.
long set_thread_uids(unsigned real, unsigned effective, unsigned saved) {
  return ::syscall(SYS_setresuid, real, effective, saved);
}

}  // namespace

LIVE_TEST("creds: user and group ids of all kinds, and groups") {
  const std::array<gid_t, 3> groups{10, 2000, 30000};
  REQUIRE(::setgroups(groups.size(), groups.data()) == 0);
  REQUIRE(::setresgid(1001, 1002, 1003) == 0);
  REQUIRE(::setresuid(2001, 2002, 2003) == 0);
  checkpoint_here();
  uid_t real = 0;
  uid_t effective = 0;
  uid_t saved = 0;
  CHECK_EQ(::getresuid(&real, &effective, &saved), 0);
  CHECK_EQ(real, 2001U);
  CHECK_EQ(effective, 2002U);
  CHECK_EQ(saved, 2003U);
  CHECK_EQ(::getresgid(&real, &effective, &saved), 0);
  CHECK_EQ(real, 1001U);
  CHECK_EQ(effective, 1002U);
  CHECK_EQ(saved, 1003U);
  std::array<gid_t, 8> now{};
  CHECK_EQ(::getgroups(now.size(), now.data()), 3);
  CHECK_EQ(now[2], 30000U);
}

LIVE_TEST("creds: the file system ids") {
  ::setfsgid(3001);
  ::setfsuid(3002);
  REQUIRE(::setfsuid(static_cast<uid_t>(-1)) == 3002);
  checkpoint_here();
  CHECK_EQ(::setfsuid(static_cast<uid_t>(-1)), 3002);
  CHECK_EQ(::setfsgid(static_cast<gid_t>(-1)), 3001);
}

LIVE_TEST("creds: capability sets") {
  auto caps = capabilities();
  caps[0].inheritable = 1U << CAP_NET_RAW | 1U << CAP_CHOWN;
  caps[0].effective &= ~(1U << CAP_SYS_TIME);
  caps[0].permitted &= ~(1U << CAP_SYS_MODULE);
  caps[0].effective &= caps[0].permitted;
  REQUIRE(::prctl(PR_CAPBSET_DROP, CAP_MKNOD) == 0);
  set_capabilities(caps);
  REQUIRE(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW, 0, 0) == 0);
  const auto expected = capabilities();
  checkpoint_here();
  CHECK(same(capabilities(), expected));
  CHECK_EQ(::prctl(PR_CAPBSET_READ, CAP_MKNOD), 0);
  CHECK_EQ(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0, 0), 1);
  CHECK_EQ(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 0);
}

LIVE_TEST("creds: securebits") {
  REQUIRE(::prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED) == 0);
  checkpoint_here();
  CHECK_EQ(::prctl(PR_GET_SECUREBITS), SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED);
}

LIVE_TEST("creds: a thread with others than its process") {
  std::atomic<pid_t> id{0};
  std::atomic<int> go{0};
  std::atomic<int> right{0};
  std::thread thread([&] {
    const auto set = set_thread_uids(0, 4001, 0);
    id = set == 0 ? static_cast<pid_t>(::syscall(SYS_gettid)) : -1;
    while (go == 0) {
      ::sched_yield();
    }
    right = ::geteuid() == 4001 ? 1 : 0;
  });
  await([&] { return id != 0; }, "the thread runs");
  REQUIRE(id > 0);
  checkpoint_here();
  go = 1;
  thread.join();
  CHECK_EQ(right.load(), 1);
  CHECK_EQ(::geteuid(), 0U);
}

LIVE_TEST("creds: umask") {
  ::umask(027);
  checkpoint_here();
  CHECK_EQ(::umask(0), 027U);
}
