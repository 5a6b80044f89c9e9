// SPDX-License-Identifier: GPL-2.0-only
// Every thread with its registers, thread-local storage, mask, stack and name.
#include <cpuid.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "harness/live.hpp"

using namespace live;

namespace {

thread_local int tls_value = 0;

// A door that threads wait at in a futex: they sleep in the kernel across the checkpoint, as threads mostly do.
class Door {
 public:
  void pass() {
    while (open_.load() == 0) {
      ::syscall(SYS_futex, &open_, FUTEX_WAIT, 0, nullptr, nullptr, 0);
    }
  }
  void open() {
    open_ = 1;
    ::syscall(SYS_futex, &open_, FUTEX_WAKE, 1 << 30, nullptr, nullptr, 0);
  }

 private:
  std::atomic<std::uint32_t> open_{0};
};

pid_t tid() { return static_cast<pid_t>(::syscall(SYS_gettid)); }

// Runs a body in a thread, up to its first sleep in a futex.
std::thread thread_at_door(const std::function<void()>& body) {
  std::atomic<pid_t> id{0};
  std::thread thread([&id, body] {
    id = tid();
    body();
  });
  await([&] { return id != 0; }, "the thread runs");
  await_syscall(id, SYS_futex);
  return thread;
}

// Spins with the registers full of a pattern until told otherwise; true when they kept it. In assembler, so that no
// compiler moves anything between the loads and the tests.
bool spin_with_sse(std::atomic<int>& run) {
  alignas(16) std::array<std::uint64_t, 2> low{0x1122334455667788, 0x99aabbccddeeff00};
  alignas(16) std::array<std::uint64_t, 2> out{};
  asm volatile(
      "movdqa %[in], %%xmm7\n"
      "1: pause\n"
      "cmpl $0, %[run]\n"
      "jne 1b\n"
      "movdqa %%xmm7, %[out]\n"
      : [out] "=m"(out)
      : [in] "m"(low), [run] "m"(run)
      : "xmm7", "memory", "cc");
  return out == low;
}

__attribute__((target("avx"))) bool spin_with_avx(std::atomic<int>& run) {
  alignas(32) std::array<std::uint64_t, 4> in{1, 0x2222222222222222, 0x3333333333333333, 0x4444444444444444};
  alignas(32) std::array<std::uint64_t, 4> out{};
  asm volatile(
      "vmovdqa %[in], %%ymm9\n"
      "1: pause\n"
      "cmpl $0, %[run]\n"
      "jne 1b\n"
      "vmovdqa %%ymm9, %[out]\n"
      : [out] "=m"(out)
      : [in] "m"(in), [run] "m"(run)
      : "xmm9", "memory", "cc");
  return out == in;
}

__attribute__((target("avx512f"))) bool spin_with_avx512(std::atomic<int>& run) {
  alignas(64) std::array<std::uint64_t, 8> in{1, 2, 3, 4, 5, 6, 7, 0x8888888888888888};
  alignas(64) std::array<std::uint64_t, 8> out{};
  std::uint64_t mask = 0;
  asm volatile(
      "vmovdqa64 %[in], %%zmm21\n"
      "movl $0xa5c3, %%eax\n"
      "kmovw %%eax, %%k3\n"
      "1: pause\n"
      "cmpl $0, %[run]\n"
      "jne 1b\n"
      "vmovdqa64 %%zmm21, %[out]\n"
      "kmovw %%k3, %%eax\n"
      "movq %%rax, %[mask]\n"
      : [out] "=m"(out), [mask] "=m"(mask)
      : [in] "m"(in), [run] "m"(run)
      : "xmm21", "k3", "rax", "memory", "cc");
  return out == in && mask == 0xa5c3;
}

constexpr int tile_rows = 16;
constexpr std::size_t tile_row = 64;  // bytes

struct TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes_of_row[16] = {0, 0, 0, 0, 0, tile_row};
  std::uint8_t rows[16] = {0, 0, 0, 0, 0, tile_rows};
};

// The fifth of eight tiles, with its shape.
__attribute__((target("amx-tile"))) bool spin_with_amx(std::atomic<int>& run) {
  alignas(64) const TileShapes shapes;
  alignas(64) TileShapes shapes_after;
  std::array<std::uint8_t, tile_rows * tile_row> in{}, out{};
  for (std::size_t i = 0; i < in.size(); ++i) {
    in[i] = static_cast<std::uint8_t>(i * 7 + i / 256);
  }
  asm volatile(
      "ldtilecfg %[shapes]\n"
      "tileloadd (%[in], %[row], 1), %%tmm5\n"
      "1: pause\n"
      "cmpl $0, %[run]\n"
      "jne 1b\n"
      "sttilecfg %[after]\n"
      "tilestored %%tmm5, (%[out], %[row], 1)\n"
      "tilerelease\n"
      : [after] "=m"(shapes_after)
      : [shapes] "m"(shapes), [in] "r"(in.data()), [out] "r"(out.data()), [row] "r"(tile_row), [run] "m"(run)
      : "memory", "cc");
  return in == out && std::memcmp(&shapes, &shapes_after, sizeof shapes) == 0;
}

bool spin_with_general(std::atomic<int>& run) {
  std::uint64_t r12 = 0;
  std::uint64_t r15 = 0;
  asm volatile(
      "movabsq $0x1212121212121212, %%r12\n"
      "movabsq $0x1515151515151515, %%r15\n"
      "1: pause\n"
      "cmpl $0, %[run]\n"
      "jne 1b\n"
      "movq %%r12, %[r12]\n"
      "movq %%r15, %[r15]\n"
      : [r12] "=m"(r12), [r15] "=m"(r15)
      : [run] "m"(run)
      : "r12", "r15", "memory", "cc");
  return r12 == 0x1212121212121212 && r15 == 0x1515151515151515;
}

bool spin_with_x87(std::atomic<int>& run) {
  std::uint16_t control = 0;
  double value = 0;
  asm volatile(
      "fninit\n"
      "fldpi\n"
      "fldl2e\n"
      "1: pause\n"
      "cmpl $0, %[run]\n"
      "jne 1b\n"
      "fnstcw %[control]\n"
      "fstp %%st(0)\n"
      "fstpl %[value]\n"
      : [control] "=m"(control), [value] "=m"(value)
      : [run] "m"(run)
      : "memory", "cc");
  return control == 0x37f && value > 3.14159265 && value < 3.14159266;
}

// Checks a spinning thread across a checkpoint.
// Stays inside the critical section of a restartable sequence until it is told to end; whenever it is disturbed there,
// it counts that and enters it anew. What it does inside would be wrong to go on with elsewhere.
void spin_in_critical_section(std::atomic<int>& run, std::atomic<std::uint64_t>& disturbed) {
  auto* const area = reinterpret_cast<struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset);
  asm volatile(
      ".pushsection .data.rel, \"aw\"\n\t"
      ".balign 32\n\t"
      "1: .long 0, 0\n\t"
      ".quad 2f, 3f - 2f, 4f\n\t"
      ".popsection\n\t"
      "6:\n\t"
      "lea 1b(%%rip), %%rax\n\t"
      "mov %%rax, %[section]\n\t"
      "2:\n\t"
      "cmpl $0, (%[run])\n\t"
      "jne 2b\n\t"
      "3:\n\t"
      "jmp 5f\n\t"
      ".long 0x53053053\n\t"
      "4:\n\t"
      "lock incq (%[disturbed])\n\t"
      "jmp 6b\n\t"
      "5:"
      : [section] "=m"(area->rseq_cs)
      : [run] "r"(&run), [disturbed] "r"(&disturbed)
      : "rax", "memory", "cc");
}

void check_registers(bool (*spin)(std::atomic<int>&)) {
  std::atomic<int> run{1};
  std::atomic<int> kept{-1};
  std::atomic<int> started{0};
  std::thread thread([&] {
    started = 1;
    kept = spin(run) ? 1 : 0;
  });
  await([&] { return started == 1; }, "the thread spins");
  checkpoint_here();
  run = 0;
  thread.join();
  CHECK_EQ(kept.load(), 1);
}

}  // namespace

LIVE_TEST("threads: ids and thread-local storage") {
  Door door;
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int i = 1; i <= 5; ++i) {
    threads.push_back(thread_at_door([&, i] {
      const auto id = tid();
      tls_value = i;
      door.pass();
      right += tid() == id && tls_value == i ? 1 : 0;
    }));
  }
  tls_value = 77;
  checkpoint_here();
  door.open();
  for (auto& thread : threads) {
    thread.join();  // also: clear_tid
  }
  CHECK_EQ(right.load(), 5);
  CHECK_EQ(tls_value, 77);
}

LIVE_TEST("threads: a mutex held by one and wanted by another") {
  Door door;
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  std::atomic<int> got{0};
  auto holder = thread_at_door([&] {
    ::pthread_mutex_lock(&mutex);
    door.pass();
    got = 1;
    ::pthread_mutex_unlock(&mutex);
  });
  auto waiter = thread_at_door([&] {
    ::pthread_mutex_lock(&mutex);
    got = got == 1 ? 2 : -1;
    ::pthread_mutex_unlock(&mutex);
  });
  checkpoint_here();
  door.open();
  holder.join();
  waiter.join();
  CHECK_EQ(got.load(), 2);
}

LIVE_TEST("threads: a robust mutex tells of its owner's death") {
  Door door;
  pthread_mutexattr_t attributes;
  pthread_mutex_t mutex;
  REQUIRE(::pthread_mutexattr_init(&attributes) == 0);
  REQUIRE(::pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
  REQUIRE(::pthread_mutex_init(&mutex, &attributes) == 0);
  auto owner = thread_at_door([&] {
    ::pthread_mutex_lock(&mutex);
    door.pass();
  });
  checkpoint_here();
  door.open();
  owner.join();
  CHECK_EQ(::pthread_mutex_lock(&mutex), EOWNERDEAD);
}

LIVE_TEST("threads: signal masks, alternate stacks and names of their own") {
  Door door;
  std::atomic<int> right{0};
  std::vector<char> stack(1 << 16);
  auto thread = thread_at_door([&] {
    sigset_t mask;
    ::sigemptyset(&mask);
    ::sigaddset(&mask, SIGHUP);
    ::sigaddset(&mask, SIGRTMIN + 5);
    ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
    stack_t alternate{};
    alternate.ss_sp = stack.data();
    alternate.ss_size = stack.size();
    ::sigaltstack(&alternate, nullptr);
    ::prctl(PR_SET_NAME, "worker");
    door.pass();
    sigset_t now;
    stack_t then{};
    ::pthread_sigmask(SIG_SETMASK, nullptr, &now);
    ::sigaltstack(nullptr, &then);
    std::array<char, 16> name{};
    ::prctl(PR_GET_NAME, name.data());
    right = ::sigismember(&now, SIGHUP) == 1 && ::sigismember(&now, SIGRTMIN + 5) == 1 &&
            ::sigismember(&now, SIGTERM) == 0 && then.ss_sp == stack.data() && then.ss_size == stack.size() &&
            std::strcmp(name.data(), "worker") == 0;
  });
  checkpoint_here();
  door.open();
  thread.join();
  CHECK_EQ(right.load(), 1);
}

LIVE_TEST("threads: signals pending for one thread") {
  Door door;
  std::atomic<int> value{0};
  std::atomic<pthread_t> handle{};
  auto thread = thread_at_door([&] {
    handle = ::pthread_self();
    sigset_t mask;
    ::sigemptyset(&mask);
    ::sigaddset(&mask, SIGRTMIN + 1);
    ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
    door.pass();
    siginfo_t info{};
    const timespec now{};
    if (::sigtimedwait(&mask, &info, &now) == SIGRTMIN + 1) {
      value = info.si_value.sival_int;
    }
  });
  REQUIRE(::pthread_sigqueue(handle, SIGRTMIN + 1, sigval{.sival_int = 4711}) == 0);
  checkpoint_here();
  door.open();
  thread.join();
  CHECK_EQ(value.load(), 4711);
}

LIVE_TEST("threads: general registers") { check_registers(spin_with_general); }
LIVE_TEST("threads: x87 registers") { check_registers(spin_with_x87); }
LIVE_TEST("threads: SSE registers") { check_registers(spin_with_sse); }

LIVE_TEST("threads: AVX registers") {
  if (!__builtin_cpu_supports("avx")) {
    skip("this CPU has no AVX");
  }
  check_registers(spin_with_avx);
}

LIVE_TEST("threads: AVX-512 registers") {
  if (!__builtin_cpu_supports("avx512f")) {
    skip("this CPU has no AVX-512");
  }
  check_registers(spin_with_avx512);
}

LIVE_TEST("threads: AMX tiles, which a process has to ask for") {
  constexpr int request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM, Linux 5.16
  constexpr int tile_data = 18;
  if (::syscall(SYS_arch_prctl, request_permission, tile_data) != 0) {
    skip("no AMX here");
  }
  check_registers(spin_with_amx);
}

LIVE_TEST("threads: a restartable sequence in its critical section") {
  if (__rseq_size == 0) {
    skip("the C library registers no rseq area");
  }
  std::atomic<int> run{1};
  std::atomic<std::uint64_t> disturbed{0};
  std::atomic<struct rseq*> area{nullptr};
  std::thread thread([&] {
    area = reinterpret_cast<struct rseq*>(static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset);
    spin_in_critical_section(run, disturbed);
  });
  await([&] { return area != nullptr && __atomic_load_n(&area.load()->rseq_cs, __ATOMIC_RELAXED) != 0; },
        "the thread is inside");
  const auto before = disturbed.load();
  checkpoint_here();
  // The kernel knows the area again: it tells the processor there, and disturbs the sequence when it moves the thread.
  await([&] { return disturbed > before; }, "the sequence begins anew");
  CHECK(static_cast<int>(__atomic_load_n(&area.load()->cpu_id, __ATOMIC_RELAXED)) >= 0);
  run = 0;
  thread.join();
}
