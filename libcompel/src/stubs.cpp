// SPDX-License-Identifier: LGPL-2.1-only
#include "stubs.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "procfs.hpp"

namespace compel {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::size_t enough_candidates = 8;

// One word that tells this process from every other one of this boot.
std::uint64_t start_time_of(pid_t pid) {
  const auto stat = procfs::stat(pid);
  return stat && !stat->dead() ? stat->start_time : 0;
}

struct Owner {
  pid_t pid = 0;
  std::uint64_t start = 0;
};

// After a fork it is another one.
Owner this_process() {
  static thread_local Owner known;
  const pid_t pid = ::getpid();
  if (known.pid != pid) {
    known = {pid, start_time_of(pid)};
  }
  return known;
}

arch::StubData data_of(const unsigned char* stub) {
  arch::StubData data;
  std::memcpy(&data, stub + arch::stub_code_size(), sizeof data);
  return data;
}

// Is a thread with these registers in the stub, or will it return there from a handler that has interrupted its way
// home? Then the frame of that handler is on the stack the thread is on.
bool comes_through(int mem, const std::vector<procfs::Area>& areas, const user_regs_struct& registers,
                   std::uint64_t stub, std::size_t size) {
  constexpr std::size_t deepest = 1 << 20;
  if (registers.rip - stub < size) {
    return true;
  }
  const auto stack = std::find_if(areas.begin(), areas.end(), [&](const procfs::Area& area) {
    return area.begin <= registers.rsp && registers.rsp < area.end;
  });
  if (stack == areas.end() || !stack->read) {
    return false;
  }
  const std::uint64_t begin = registers.rsp & ~std::uint64_t{7};
  std::vector<std::uint64_t> words(std::min<std::uint64_t>(stack->end - begin, deepest) / 8);
  const ssize_t got = ::pread(mem, words.data(), words.size() * 8, static_cast<off_t>(begin));
  words.resize(got < 0 ? 0 : static_cast<std::size_t>(got) / 8);
  return std::any_of(words.begin(), words.end(), [&](std::uint64_t word) { return word - stub < size; });
}

}  // namespace

void read_memory(int mem, std::uint64_t address, void* buffer, std::size_t size) {
  auto* to = static_cast<char*>(buffer);
  while (size != 0) {
    const ssize_t got = ::pread(mem, to, size, static_cast<off_t>(address));
    if (got <= 0) {
      throw base::Error("read memory", "address " + std::to_string(address), got < 0 && errno != EIO ? errno : EFAULT);
    }
    to += got;
    address += static_cast<std::uint64_t>(got);
    size -= static_cast<std::size_t>(got);
  }
}

void write_memory(int mem, std::uint64_t address, const void* buffer, std::size_t size) {
  const auto* from = static_cast<const char*>(buffer);
  while (size != 0) {
    const ssize_t done = ::pwrite(mem, from, size, static_cast<off_t>(address));
    if (done <= 0) {
      throw base::Error("write memory", "address " + std::to_string(address),
                        done < 0 && errno != EIO ? errno : EFAULT);
    }
    from += done;
    address += static_cast<std::uint64_t>(done);
    size -= static_cast<std::size_t>(done);
  }
}

std::vector<unsigned char> make_stub(const user_regs_struct& home, std::uint64_t mask, std::uint64_t unmap_base) {
  const Owner us = this_process();
  std::vector<unsigned char> bytes(arch::compel_stub_begin, arch::compel_stub_end);
  arch::StubData data = data_of(bytes.data());
  arch::fill_home(data, home, mask);
  data.owner = static_cast<std::uint64_t>(us.pid);
  data.owner_start = us.start;
  data.unmap_base = unmap_base;
  std::memcpy(bytes.data() + arch::stub_code_size(), &data, sizeof data);
  return bytes;
}

Stub::Stub(Stub&& other) noexcept : mem_(other.mem_), address_(std::exchange(other.address_, 0)) {}

Stub& Stub::operator=(Stub&& other) noexcept {
  if (this != &other) {
    clear();
    mem_ = other.mem_;
    address_ = std::exchange(other.address_, 0);
  }
  return *this;
}

void Stub::clear() noexcept {
  if (address_ != 0) {
    const std::vector<unsigned char> zeros(arch::stub_size());
    // A failure means that the task has no memory any more.
    (void)!::pwrite(mem_, zeros.data(), zeros.size(), static_cast<off_t>(std::exchange(address_, 0)));
  }
}

// A private mapping only: what is written must not reach the file.
void StubRoom::look_at_tail(int mem, const procfs::Area& area) {
  const bool vdso = area.name == "[vdso]";
  if (!area.read || !area.execute || area.write || area.shared || !(vdso || area.file)) {
    return;
  }
  const std::size_t step = (arch::stub_size() + 15) & ~std::size_t{15};
  unsigned char tail[page];
  if (::pread(mem, tail, sizeof tail, static_cast<off_t>(area.end - page)) != static_cast<ssize_t>(sizeof tail)) {
    return;
  }
  // From the end: zeros, and stubs of others.
  for (std::size_t at = page; at >= step;) {
    at -= step;
    const unsigned char* bytes = tail + at;
    const bool zeros = std::all_of(bytes, bytes + step, [](unsigned char byte) { return byte == 0; });
    if (!zeros && std::memcmp(bytes, arch::compel_stub_begin, arch::stub_code_size()) != 0) {
      break;
    }
    candidates_.push_back(area.end - page + at);
  }
}

// The tail of the last page of the vDSO, which the kernel maps in whole pages; else of other program files, too.
void StubRoom::find_candidates(pid_t pid, int mem) {
  candidates_.clear();
  if (!std::exchange(looked_at_vdso_, true)) {
    if (const auto vdso = procfs::vdso(pid)) {
      look_at_tail(mem, *vdso);
      if (!candidates_.empty()) {
        return;
      }
    }
  }
  std::vector<procfs::Area> areas = procfs::areas(pid);
  std::stable_partition(areas.begin(), areas.end(), [](const procfs::Area& area) { return area.name == "[vdso]"; });
  for (const procfs::Area& area : areas) {
    look_at_tail(mem, area);
    if (candidates_.size() >= enough_candidates) {
      break;
    }
  }
  looked_everywhere_ = true;
}

// Zeros are. A stub is when its master is dead and nobody can be on the way home through it any more.
bool StubRoom::usable(pid_t pid, int mem, std::uint64_t address,
                      const std::vector<std::unique_ptr<Thread>>& threads) const {
  std::vector<unsigned char> bytes(arch::stub_size());
  read_memory(mem, address, bytes.data(), bytes.size());
  if (std::all_of(bytes.begin(), bytes.end(), [](unsigned char byte) { return byte == 0; })) {
    return true;
  }
  if (std::memcmp(bytes.data(), arch::compel_stub_begin, arch::stub_code_size()) != 0) {
    return false;
  }
  const arch::StubData data = data_of(bytes.data());
  if (start_time_of(static_cast<pid_t>(data.owner)) == data.owner_start) {
    return false;  // alive, be it another thread of ours or another task on the same memory
  }
  const std::vector<procfs::Area> areas = procfs::areas(pid);
  for (const procfs::Area& area : areas) {
    if (data.unmap_base != 0 && area.begin <= data.unmap_base && data.unmap_base < area.end) {
      return false;
    }
  }
  return std::none_of(threads.begin(), threads.end(), [&](const auto& thread) {
    return !thread->gone() && comes_through(mem, areas, thread->saved().registers, address, bytes.size());
  });
}

Stub StubRoom::place(pid_t pid, int mem, const std::vector<std::unique_ptr<Thread>>& threads,
                     const std::vector<unsigned char>& bytes) {
  if (candidates_.empty()) {
    find_candidates(pid, mem);
  }
  for (;;) {
    for (const std::uint64_t address : candidates_) {
      if (usable(pid, mem, address, threads)) {
        // The data before the code: a stub that looks like one is complete.
        const std::size_t code = arch::stub_code_size();
        write_memory(mem, address + code, bytes.data() + code, bytes.size() - code);
        write_memory(mem, address, bytes.data(), code);
        return Stub(mem, address);
      }
    }
    if (looked_everywhere_) {
      break;
    }
    find_candidates(pid, mem);
  }
  throw base::Error("enter", procfs::describe(pid), EOPNOTSUPP,
                    "no unused bytes in an executable private mapping for the way back");
}

}  // namespace compel
