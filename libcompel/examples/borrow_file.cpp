// SPDX-License-Identifier: LGPL-2.1-only
// Makes another process open a file, with its rights and its view of the file system, and prints what it sees.
//   borrow_file PID PATH
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <compel/compel.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>

int main(int argc, char** argv) try {
  if (argc != 3) {
    return std::fprintf(stderr, "usage: borrow_file PID PATH\n"), 2;
  }
  compel::Tree tree = compel::Tree::seize(std::atoi(argv[1]));
  compel::Task task = tree.root();
  const auto page = task.syscall(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  task.write(page, argv[2], std::strlen(argv[2]) + 1);
  const auto there = task.syscall(SYS_openat, AT_FDCWD, page, O_RDONLY | O_CLOEXEC, 0);
  const int here = there < 0 ? -1 : task.take_fd(static_cast<int>(there));
  task.syscall(SYS_munmap, page, 4096);
  if (here < 0) {
    return std::fprintf(stderr, "%s: %s\n", argv[2], std::strerror(static_cast<int>(-there))), 1;
  }
  task.syscall(SYS_close, there);
  tree.release();
  char text[4096];
  for (ssize_t got; (got = read(here, text, sizeof text)) > 0;) {
    std::fwrite(text, 1, static_cast<std::size_t>(got), stdout);
  }
} catch (const compel::Error& error) {
  return std::fprintf(stderr, "borrow_file: %s\n", error.what()), 1;
}
