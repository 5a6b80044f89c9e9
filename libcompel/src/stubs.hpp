// SPDX-License-Identifier: LGPL-2.1-only
// Room for stubs in a task: bytes that are mapped executable, are zero, and are nobody's.
#pragma once

#include <sys/types.h>

#include <arch/stub.hpp>
#include <cstdint>
#include <vector>

#include "procfs.hpp"
#include "thread.hpp"

namespace compel {

// Memory of the task through /proc/PID/mem, which asks no permissions of the mapping. Throws.
void read_memory(int mem, std::uint64_t address, void* buffer, std::size_t size);
void write_memory(int mem, std::uint64_t address, const void* buffer, std::size_t size);

// The bytes of a stub which takes a thread home to these registers and this mask.
std::vector<unsigned char> make_stub(const user_regs_struct& home, std::uint64_t mask, std::uint64_t unmap_base);

// One stub in a task. Zeros again when it goes away.
class Stub {
 public:
  Stub() = default;
  Stub(int mem, std::uint64_t address) : mem_(mem), address_(address) {}
  Stub(Stub&& other) noexcept;
  Stub& operator=(Stub&& other) noexcept;
  Stub(const Stub&) = delete;
  Stub& operator=(const Stub&) = delete;
  ~Stub() { clear(); }

  explicit operator bool() const { return address_ != 0; }
  std::uint64_t address() const { return address_; }
  void clear() noexcept;

 private:
  int mem_ = -1;
  std::uint64_t address_ = 0;
};

// Finds room once for a task, and puts stubs there.
class StubRoom {
 public:
  Stub place(pid_t pid, int mem, const std::vector<std::unique_ptr<Thread>>& threads,
             const std::vector<unsigned char>& bytes);

 private:
  void find_candidates(pid_t pid, int mem);
  void look_at_tail(int mem, const procfs::Area& area);
  bool usable(pid_t pid, int mem, std::uint64_t address, const std::vector<std::unique_ptr<Thread>>& threads) const;

  bool looked_at_vdso_ = false, looked_everywhere_ = false;
  std::vector<std::uint64_t> candidates_;
};

}  // namespace compel
