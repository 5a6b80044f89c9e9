// SPDX-License-Identifier: LGPL-2.1-only
// io_uring. docs/io_uring.md says what of it can be saved, and what cannot and why.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "files/kind.hpp"

namespace criu {

struct DumpContext;

namespace task {
class FrozenTree;
struct SavedTask;
}  // namespace task

namespace files {

class Collector;

extern const Kind io_uring_kind;

// ---- dump ----

// A ring that was met among the descriptors. What is in it is saved when all tasks are known, since they have to be
// asked.
struct RingFile {
  std::uint32_t id;
  pid_t pid;
  int fd;  // in that task
  base::Fd own;
  ino_t inode;
  std::string what;
};

// Saves them into io-uring.img, and tells the areas of the tasks which ring they are of.
void save_rings(DumpContext&, task::FrozenTree&, Collector&, std::vector<task::SavedTask>&);

// For a tree that is about to be killed. The end of a task cancels what its rings do too, but then the kernel lets go
// of the files from a queue of its own, some time after the last task is gone: a restore finds their addresses in use.
void quiet_rings(task::FrozenTree&, const std::vector<RingFile>&);

// ---- restore ----

// What is left to be done for a ring when the memory of its task is where it belongs: buffers and requests are named
// by their addresses. One system call, or a copy into memory.
struct RingStep {
  std::uint64_t number = 0;  // 0: copies `data` to args[0]
  std::uint64_t args[6] = {};
  std::vector<std::byte> data{};  // its address takes the place of argument `data_at`
  int data_at = -1;
  std::int64_t expected = 0;
  const char* what = "";
};
// Of the rings that this process has made.
std::vector<RingStep> take_ring_steps();

}  // namespace files
}  // namespace criu
