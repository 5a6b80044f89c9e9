// SPDX-License-Identifier: GPL-2.0-only
// Trees in all states: what is found, and that it is left as it was.
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <compel/compel.hpp>
#include <cstddef>
#include <map>
#include <thread>

#include "test_blob.h"
#include "victim.hpp"
#include "workload.hpp"

using test::Board;
using test::Victim;

namespace {

char state_of(pid_t pid) {
  const std::string text = test::proc_text(pid, "stat");
  const std::size_t at = text.rfind(')');
  return at == std::string::npos ? '-' : text[at + 2];
}

void wait_for_state(pid_t pid, char state) {
  REQUIRE(test::eventually([&] { return state_of(pid) == state; }));
}

int patient(Board& board) {
  board.ready++;
  while (board.released == 0) {
    ::sched_yield();
  }
  return 0;
}

}  // namespace

TEST_CASE("a tree is found in order, with a zombie") {
  Victim victim([](Board& board) {
    const auto child = [&](int value, const std::function<void()>& body) {
      const pid_t pid = ::fork();
      if (pid == 0) {
        body();
        ::_exit(patient(board));
      }
      board.values[value] = pid;
    };
    child(0, [&] { child(1, [&] { child(2, [] {}); }); });
    child(3, [] { ::_exit(4); });
    child(4, [] {});
    const int result = patient(board);
    ::syscall(SYS_kill, -::getpgrp(), SIGCONT);
    return result;
  });
  victim.wait_ready(5);
  wait_for_state(static_cast<pid_t>(victim.board().values[3]), 'Z');
  const auto value = [&](int at) { return static_cast<pid_t>(victim.board().values[at].load()); };
  compel::Tree tree = compel::Tree::freeze(victim.pid());
  REQUIRE(tree.size() == 6);
  CHECK(tree.root().pid() == victim.pid());
  std::map<pid_t, std::size_t> places;
  for (std::size_t i = 0; i < tree.size(); ++i) {
    CHECK((i == 0 || places.count(tree.task(i).ppid()) == 1));
    places[tree.task(i).pid()] = i;
  }
  CHECK(places.count(value(2)) == 1);
  compel::Task zombie = tree.task(places.at(value(3)));
  CHECK(zombie.state() == compel::State::zombie);
  CHECK(zombie.tids().empty());
  CHECK(zombie.ppid() == victim.pid());
  CHECK_THROWS_AS(zombie.syscall(SYS_getpid), compel::Error);
  CHECK(state_of(value(2)) == 't');
  CHECK(compel_tree_find(tree.get(), value(4)) != nullptr);
  SECTION("killed") {
    tree.release(compel::Final::kill);
    CHECK(victim.join() == -SIGKILL);
  }
  SECTION("resumed") {
    tree.release();
    victim.board().released = 1;
    CHECK(victim.join() == 0);
  }
  SECTION("left stopped") {
    tree.release(compel::Final::stop);
    wait_for_state(victim.pid(), 'T');
    wait_for_state(value(2), 'T');
    for (int i = 0; i < 5; ++i) {
      ::kill(value(i), SIGCONT);
    }
    ::kill(victim.pid(), SIGCONT);
    victim.board().released = 1;
    CHECK(victim.join() == 0);
  }
  while (::waitpid(-1, nullptr, 0) > 0) {  // orphans come to us
  }
}

TEST_CASE("a stopped process stays stopped, and its parent hears nothing") {
  const int stop_signal = GENERATE(SIGSTOP, SIGTSTP);
  // In a session of its own a process group is orphaned and SIGTSTP ignored there, so the stopped one is a child in a
  // group of its own of a parent in the same session.
  Victim victim([stop_signal](Board& board) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::setpgid(0, 0);
      return patient(board);
    }
    ::setpgid(child, child);
    board.values[0] = child;
    while (board.ready == 0) {
      ::sched_yield();
    }
    ::kill(child, stop_signal);
    int status = 0;
    if (::waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status) || WSTOPSIG(status) != stop_signal) {
      return 1;
    }
    board.ready++;
    while (board.values[1] == 0) {  // meanwhile it is frozen, entered, and let go
      ::sched_yield();
    }
    if (::waitpid(child, &status, WUNTRACED | WCONTINUED | WNOHANG) != 0) {
      return 2;
    }
    ::kill(child, SIGCONT);
    if (::waitpid(child, &status, WCONTINUED) != child || !WIFCONTINUED(status)) {
      return 3;
    }
    board.released = 1;
    return ::waitpid(child, &status, 0) == child && status == 0 ? 0 : 4;
  });
  victim.wait_ready(2);
  const pid_t child = static_cast<pid_t>(victim.board().values[0].load());
  const bool enter = GENERATE(false, true);
  for (int round = 0; round < 3; ++round) {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    compel::Task task(compel_tree_find(tree.get(), child));
    CHECK(task.state() == compel::State::stopped);
    CHECK(task.stop_signal() == stop_signal);
    CHECK(tree.root().state() == compel::State::alive);
    if (enter) {
      CHECK(task.syscall(SYS_getpid) == child);
      compel::Parasite parasite = task.load(test_blob, 64);
      parasite.start();
      CHECK(parasite.call("ids") == 7);
    }
    tree.release();
    wait_for_state(child, 'T');
  }
  victim.board().values[1] = 1;
  CHECK(victim.join() == 0);
}

TEST_CASE("SIGSTOP and SIGCONT while something runs inside") {
  Victim victim(test::busy_process);
  victim.wait_ready(test::busy_threads + 1);
  const bool go_on = GENERATE(false, true);
  {
    compel::Tree tree = compel::Tree::seize(victim.pid());
    compel::Parasite parasite = tree.root().load(test_blob, 64);
    parasite.start();
    ::kill(victim.pid(), SIGSTOP);
    for (int i = 0; i < 50; ++i) {
      REQUIRE(parasite.call("ids") == 7);
    }
    if (go_on) {
      ::kill(victim.pid(), SIGCONT);
    }
    parasite.stop();
    CHECK(tree.root().syscall(SYS_getpid) == victim.pid());
  }
  if (!go_on) {
    wait_for_state(victim.pid(), 'T');
    ::kill(victim.pid(), SIGCONT);
  }
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}

TEST_CASE("SIGKILL while something runs inside") {
  Victim victim(test::busy_process);
  victim.wait_ready(test::busy_threads + 1);
  compel::Tree tree = compel::Tree::seize(victim.pid());
  compel::Parasite parasite = tree.root().load(test_blob, 64);
  parasite.start();
  parasite.post("spin", 0);
  ::kill(victim.pid(), SIGKILL);
  CHECK_THROWS_AS(parasite.wait(), compel::Error);
  CHECK_THROWS_AS(parasite.call("ids"), compel::Error);
  CHECK_NOTHROW(tree.release());
  CHECK(victim.join() == -SIGKILL);
}

TEST_CASE("threads that are made while it is frozen") {
  Victim victim([](Board& board) {
    std::atomic<bool> stop{false};
    std::vector<std::thread> makers;
    makers.reserve(4);
    for (int i = 0; i < 4; ++i) {
      makers.emplace_back([&] {
        while (!stop) {
          std::thread([] {}).join();
          board.values[0]++;
        }
      });
    }
    board.ready++;
    while (board.released == 0) {
      ::sched_yield();
    }
    stop = true;
    for (std::thread& maker : makers) {
      maker.join();
    }
    return 0;
  });
  victim.wait_ready();
  for (int round = 0; round < 100; ++round) {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    const long before = victim.board().values[0];
    compel::Task task = tree.root();
    const std::vector<pid_t> tids = task.tids();
    for (const pid_t tid : tids) {
      REQUIRE(test::proc_text(victim.pid(), "task/" + std::to_string(tid) + "/stat").find(") t ") != std::string::npos);
    }
    CHECK(tids.size() == static_cast<std::size_t>(std::stol(test::status_line(victim.pid(), "Threads"))));
    compel::Parasite parasite = task.load(test_blob, 8 * tids.size());
    const std::vector<long> results = parasite.call_in_threads(tids, "double_it", 0, 8);
    CHECK(results == std::vector<long>(tids.begin(), tids.end()));
    CHECK(victim.board().values[0] == before);
  }
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}

TEST_CASE("children that come and go while the tree is frozen") {
  Victim victim([](Board& board) {
    board.ready++;
    while (board.released == 0) {
      const pid_t child = ::fork();
      if (child == 0) {
        const pid_t grandchild = ::fork();
        if (grandchild == 0) {
          ::_exit(0);
        }
        ::waitpid(grandchild, nullptr, 0);
        ::_exit(0);
      }
      int status = 0;
      if (::waitpid(child, &status, 0) != child || status != 0) {
        return 1;
      }
      board.values[0]++;
    }
    return 0;
  });
  victim.wait_ready();
  for (int round = 0; round < 200; ++round) {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    const long before = victim.board().values[0];
    for (const compel::Task& task : tree.tasks()) {
      const char state = state_of(task.pid());
      REQUIRE((task.state() == compel::State::zombie ? state == 'Z' : state == 't'));
    }
    CHECK(tree.root().syscall(SYS_getpid) == victim.pid());
    CHECK(victim.board().values[0] == before);
  }
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}

TEST_CASE("a thousand threads") {
  constexpr int count = 1000;
  Victim victim([](Board& board) {
    std::vector<std::thread> threads;
    threads.reserve(count);
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([&board] {
        board.ready++;
        while (board.released == 0) {
          ::syscall(SYS_futex, &board.released, 0 /* FUTEX_WAIT */, 0, nullptr, nullptr, 0);
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
    return 0;
  });
  victim.wait_ready(count);
  const auto clock = [] { return std::chrono::steady_clock::now(); };
  const auto micros = [](auto span) { return std::chrono::duration_cast<std::chrono::microseconds>(span).count(); };
  const auto begin = clock();
  compel::Tree tree = compel::Tree::freeze(victim.pid());
  const auto frozen = clock();
  compel::Parasite parasite = tree.root().load(test_blob, 8 * (count + 1));
  const std::vector<pid_t> tids = tree.root().tids();
  REQUIRE(tids.size() == count + 1);
  const auto loaded = clock();
  const std::vector<long> results = parasite.call_in_threads(tids, "double_it", 0, 8);
  const auto called = clock();
  CHECK(results == std::vector<long>(tids.begin(), tids.end()));
  parasite.unload();
  const auto unloaded = clock();
  tree.release();
  WARN("1001 threads: freeze " << micros(frozen - begin) << " us, run in all " << micros(called - loaded)
                               << " us, release " << micros(clock() - unloaded) << " us");
  victim.board().released = 1;
  ::syscall(SYS_futex, &victim.board().released, 1 /* FUTEX_WAKE */, count, nullptr, nullptr, 0);
  CHECK(victim.join() == 0);
}

TEST_CASE("who is traced already is named, and nobody is left stopped") {
  Victim victim(test::busy_process);
  victim.wait_ready(test::busy_threads + 1);
  Victim tracer([&](Board& board) {
    ::ptrace(PTRACE_SEIZE, victim.pid(), 0, 0);
    board.ready++;
    ::pause();
    return 0;
  });
  tracer.wait_ready();
  CHECK_THROWS_WITH(compel::Tree::freeze(victim.pid()),
                    Catch::Contains(std::to_string(victim.pid())) &&
                        Catch::Contains("traced by task " + std::to_string(tracer.pid())));
  compel_tree* raw = nullptr;
  CHECK(compel_seize(victim.pid(), nullptr, &raw) == -EBUSY);
  CHECK(compel_seize(999999999, nullptr, &raw) == -ESRCH);
  ::kill(tracer.pid(), SIGKILL);
  tracer.join();
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}

TEST_CASE("who cannot be stopped is named after the timeout") {
  // The parent of a vfork waits uninterruptibly for its child.
  Victim victim([](Board& board) {
    const pid_t child = ::vfork();
    if (child == 0) {
      board.ready++;
      while (board.released == 0) {
        ::syscall(SYS_sched_yield);
      }
      ::_exit(0);
    }
    int status = 0;
    return ::waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
  });
  victim.wait_ready();
  compel::Options options;
  options.timeout_seconds = 1;
  CHECK_THROWS_WITH(compel::Tree::freeze(victim.pid(), options),
                    Catch::Contains(std::to_string(victim.pid())) && Catch::Contains("vfork"));
  victim.board().released = 1;
  // It stops as soon as it can, and is let go by the next call.
  REQUIRE(test::eventually([&] {
    compel_release(nullptr, COMPEL_RESUME);
    return state_of(victim.pid()) == 'Z';
  }));
  CHECK(victim.join() == 0);
}

TEST_CASE("a filter that kills for mmap") {
  const bool strict = GENERATE(false, true);
  Victim victim([strict](Board& board) {
    board.ready++;
    if (strict) {
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    } else {
      sock_filter code[] = {
          BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 2, 0),
          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_yield, 1, 0),
          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      };
      sock_fprog program{sizeof code / sizeof code[0], code};
      ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
    }
    board.ready++;
    while (board.released == 0) {
    }
    ::syscall(strict ? SYS_exit : SYS_exit_group, 8);
    return 1;
  });
  victim.wait_ready(2);
  REQUIRE(test::status_line(victim.pid(), "Seccomp") == (strict ? "1" : "2"));
  const std::string before = test::maps(victim.pid());
  {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    CHECK(tree.root().syscall(SYS_getpid) == victim.pid());
    compel::Parasite parasite = tree.root().load(test_blob, 64);
    parasite.start();
    CHECK(parasite.call("ids") == 7);
  }
  CHECK(test::maps(victim.pid()) == before);
  victim.board().released = 1;
  CHECK(victim.join() == 8);
}

TEST_CASE("no descriptor to spare, no executable memory allowed, no vDSO") {
  const int which = GENERATE(0, 1, 2);
  Victim victim([which](Board& board) {
    if (which == 0) {
      while (::dup(0) >= 0) {
      }
    } else if (which == 1) {
      constexpr int set_mdwe = 65;  // PR_SET_MDWE, Linux 6.3
      ::prctl(set_mdwe, 1, 0, 0, 0);
    } else {
      const std::string text = test::proc_text(::getpid(), "maps");
      const std::size_t line = text.rfind('\n', text.find("[vdso]")) + 1;
      const auto begin = std::stoull(text.substr(line, 12), nullptr, 16),
                 end = std::stoull(text.substr(line + 13, 12), nullptr, 16);
      ::munmap(reinterpret_cast<void*>(begin), end - begin);
    }
    board.ready++;
    while (board.released == 0) {
      ::syscall(SYS_sched_yield);
    }
    return 0;
  });
  victim.wait_ready();
  {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    compel::Parasite parasite = tree.root().load(test_blob, 64);
    CHECK(parasite.call("ids") == 7);
    parasite.start();
    CHECK(parasite.call("ids") == 7);
    if (which == 0) {
      CHECK_THROWS_WITH(parasite.give_fd(1), Catch::Contains("descriptors"));
      CHECK(parasite.call("ids") == 7);
    }
  }
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}

TEST_CASE("a call that is refused by a signal leaves the task as it was") {
  // Syscall user dispatch turns each call outside of a range into SIGSYS.
  static volatile char selector;
  Victim victim([](Board& board) {
    board.values[0] = ::prctl(59 /* PR_SET_SYSCALL_USER_DISPATCH */, 1, 0, 0, &selector);
    board.ready++;
    selector = 1;
    while (board.released == 0) {
    }
    selector = 0;
    return 3;
  });
  victim.wait_ready();
  if (victim.board().values[0] != 0) {
    WARN("no syscall user dispatch here");
    return;
  }
  for (int round = 0; round < 3; ++round) {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    char blocks = 0;
    tree.root().read(reinterpret_cast<std::uint64_t>(&selector), &blocks, 1);
    if (blocks == 1) {
      CHECK_THROWS_WITH(tree.root().syscall(SYS_getpid), Catch::Contains("Bad system call"));
    }
  }
  victim.board().released = 1;
  CHECK(victim.join() == 3);
}

TEST_CASE("the kernel's own io_uring threads are left alone") {
  Victim victim([](Board& board) {
    io_uring_params parameters{};
    parameters.flags = IORING_SETUP_SQPOLL;
    parameters.sq_thread_idle = 10'000;
    board.values[0] = ::syscall(SYS_io_uring_setup, 8, &parameters) >= 0 ? 1 : -errno;
    return patient(board);
  });
  victim.wait_ready();
  if (victim.board().values[0] != 1) {
    WARN("no io_uring here: errno " << -victim.board().values[0]);
    return;
  }
  REQUIRE(test::status_line(victim.pid(), "Threads") == "2");
  for (int round = 0; round < 3; ++round) {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    CHECK(tree.root().tids() == std::vector<pid_t>{victim.pid()});
    CHECK(tree.root().syscall(SYS_getpid) == victim.pid());
  }
  victim.board().released = 1;
  CHECK(victim.join() == 0);
}

TEST_CASE("registers can be changed") {
  Victim victim([](Board& board) {
    board.ready++;
    long value = 1;
    asm volatile("1: cmp $1, %0\n je 1b" : "+r"(value));
    return static_cast<int>(value);
  });
  victim.wait_ready();
  compel::Tree tree = compel::Tree::freeze(victim.pid());
  compel::Task task = tree.root();
  user_regs_struct registers = task.registers(victim.pid());
  // Whichever register the compiler took: all that hold a 1.
  for (auto* at : {&registers.rax, &registers.rbx, &registers.rcx, &registers.rdx, &registers.rsi, &registers.rdi,
                   &registers.r8, &registers.r9, &registers.r10, &registers.r11, &registers.r12, &registers.r13}) {
    *at = *at == 1 ? 23 : *at;
  }
  task.set_registers(victim.pid(), registers);
  CHECK(task.syscall(SYS_getpid) == victim.pid());
  tree.release();
  CHECK(victim.join() == 23);
}

TEST_CASE("a restartable sequence is aborted when it was entered") {
  // A section that spins for ever: only its abort handler leaves it. glibc has registered the area.
  Victim victim([](Board& board) {
    struct Section {
      std::uint32_t version, flags;
      std::uint64_t start, length, abort;
    };
    alignas(32) static Section section{};
    extern const std::ptrdiff_t __rseq_offset;
    char* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
    auto* pointer = reinterpret_cast<volatile std::uint64_t*>(area + 8);
    long rounds = 0;
    asm volatile(
        "leaq 1f(%%rip), %%rax\n movq %%rax, 8(%[section])\n"
        "leaq 2f(%%rip), %%rcx\n subq %%rax, %%rcx\n movq %%rcx, 16(%[section])\n"
        "leaq 3f(%%rip), %%rax\n movq %%rax, 24(%[section])\n"
        "jmp 4f\n"
        ".long 0x53053053\n"
        "3: incq %[rounds]\n"
        "movq $1, %[aborted]\n"
        "cmpl $0, %[released]\n jne 5f\n"
        "4: movq %[section], (%[pointer])\n"
        "1: lock incl %[ready]\n jmp 1b\n"
        "2: nop\n"
        "5:\n"
        : [rounds] "+r"(rounds), [ready] "+m"(board.ready), [released] "+m"(board.released),
          [aborted] "+m"(board.values[1])
        : [section] "r"(&section), [pointer] "r"(pointer)
        : "rax", "rcx", "memory");
    *pointer = 0;
    board.values[0] = rounds;
    return 0;
  });
  victim.wait_ready();
  const bool enter = GENERATE(false, true);
  for (int round = 0; round < 20; ++round) {
    compel::Tree tree = compel::Tree::freeze(victim.pid());
    compel::Task task = tree.root();
    const compel_rseq_info rseq = task.rseq(victim.pid());
    REQUIRE(rseq.pointer != 0);
    CHECK(rseq.signature == 0x53053053);
    if (rseq.inside != 0) {
      const std::uint64_t ip = task.registers(victim.pid()).rip;
      CHECK(ip - rseq.start < rseq.length);
      victim.board().values[1] = 0;
    }
    if (enter) {
      CHECK(task.syscall(SYS_getpid) == victim.pid());
    }
    tree.release();
    if (rseq.inside != 0) {
      REQUIRE(test::eventually([&] { return victim.board().values[1] == 1; }));
    }
  }
  // The last freeze comes upon the wish to end, so that the next abort leads out.
  victim.board().released = 1;
  REQUIRE(test::eventually([&] {
    if (state_of(victim.pid()) == 'Z') {
      return true;
    }
    compel::Tree tree = compel::Tree::seize(victim.pid());
    return false;
  }));
  CHECK(victim.join() == 0);
}
