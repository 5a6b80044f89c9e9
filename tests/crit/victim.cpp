// SPDX-License-Identifier: GPL-2.0-only
// A program whose core file is looked at: threads with known values in vector registers, memory of each kind.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <thread>

char in_data[] = "what is in the data segment";
char* in_heap;
char* in_shared;
char* in_deleted;
std::atomic<int> ready;

namespace {

void* map(int fd, std::size_t size, int flags) { return mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0); }

}  // namespace

// In the kernel for ever, with these values in the registers: a wait for memory that never changes.
extern "C" __attribute__((noinline)) void hold(int number) {
  static const int word = 1;
  std::uint32_t low[4];
  std::uint32_t high[8];
  for (int i = 0; i < 8; ++i) {
    low[i % 4] = 0x11110000U + static_cast<std::uint32_t>(number);
    high[i] = 0x22220000U + static_cast<std::uint32_t>(number);
  }
  ready.fetch_add(1);
  const bool wide = __builtin_cpu_supports("avx") != 0;
  const long futex = SYS_futex;
  for (;;) {
    long result = futex;
    register long no_timeout asm("r10") = 0;
    if (wide) {
      asm volatile("vmovdqu %1, %%ymm7\n\tmovdqu %2, %%xmm6\n\tsyscall"
                   : "+a"(result)
                   : "m"(high), "m"(low), "D"(&word), "S"(0L), "d"(1L), "r"(no_timeout)
                   : "rcx", "r11", "memory", "xmm6", "xmm7");
    } else {
      asm volatile("movdqu %1, %%xmm6\n\tsyscall"
                   : "+a"(result)
                   : "m"(low), "D"(&word), "S"(0L), "d"(1L), "r"(no_timeout)
                   : "rcx", "r11", "memory", "xmm6");
    }
  }
}

int main(int argc, char** argv) {
  if (argc != 2) {
    return 2;
  }
  in_heap = new char[64];
  std::strcpy(in_heap, "what is in the heap");
  in_shared = static_cast<char*>(map(-1, 8192, MAP_SHARED | MAP_ANONYMOUS));
  std::strcpy(in_shared + 4096, "what is shared");
  const int fd = open(argv[1], O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd < 0 || ftruncate(fd, 8192) != 0) {
    return 2;
  }
  in_deleted = static_cast<char*>(map(fd, 8192, MAP_SHARED));
  std::strcpy(in_deleted + 4096, "what was in a deleted file");
  unlink(argv[1]);
  std::thread first(hold, 1);
  std::thread second(hold, 2);
  while (ready.load() < 2) {
    std::this_thread::yield();
  }
  std::puts("ready");
  std::fclose(stdout);  // and with it the end of a pipe that leads out of the tree
  hold(0);
}
