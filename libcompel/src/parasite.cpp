// SPDX-License-Identifier: LGPL-2.1-only
#include "parasite.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "channel.hpp"

using compel::Gone;
using compel::Thread;
namespace procfs = compel::procfs;

static_assert(offsetof(compel_slot, stub) == COMPEL_SLOT_STUB);
static_assert(offsetof(compel_slot, unmap_base) == COMPEL_SLOT_UNMAP_BASE);
static_assert(offsetof(compel_slot, unmap_size) == COMPEL_SLOT_UNMAP_SIZE);
static_assert(offsetof(compel_slot, xsave) == COMPEL_SLOT_XSAVE);
static_assert(offsetof(compel_slot, stack) == COMPEL_SLOT_STACK);
static_assert(offsetof(compel_slot, open) == COMPEL_SLOT_OPEN);

namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t leader_stack = 65536, thread_stack = 16384;
constexpr std::size_t most_threads_at_once = 64;

constexpr std::size_t pages(std::size_t size) { return (size + page - 1) & ~(page - 1); }

void check_blob(const compel_blob& blob, const std::string& object) {
  const char* wrong = blob.abi != COMPEL_BLOB_ABI ? "made for another version of libcompel"
                      : blob.size > blob.mem_size || blob.data_offset % page != 0 ? "broken"
                      : blob.data_offset == 0 || blob.data_offset > blob.mem_size ? "broken"
                                                                                  : nullptr;
  if (wrong != nullptr) {
    throw base::Error("load a blob", object, EINVAL, std::string("the blob is ") + wrong);
  }
}

}  // namespace

compel_parasite::compel_parasite(compel_task& task, const compel_blob& blob, std::size_t data_size)
    : task_(&task), data_size_(pages(data_size)) {
  const std::string object = procfs::describe(task.pid());
  check_blob(blob, object);
  if (task.parasite != nullptr) {
    throw base::Error("load a blob", object, EEXIST, "it has a parasite already");
  }
  for (std::uint64_t i = 0; i < blob.symbol_count; ++i) {
    symbols_.emplace_back(blob.symbols[i].name, blob.symbols[i].offset);
  }
  vectors_ = (blob.flags & COMPEL_BLOB_VECTOR) != 0;
  lay_out(blob);
  map_into_task();
  place(blob);
  symbol("compel_enter");
  task.parasite = this;
}

compel_parasite::~compel_parasite() {
  try {
    unload();
  } catch (...) {
    // A destructor has nobody to tell; the mapping is then all that is left in the task.
  }
}

void compel_parasite::lay_out(const compel_blob& blob) {
  threads_ = std::min(task_->tids().size(), most_threads_at_once);
  stub_step_ = (arch::stub_size() + 63) & ~std::size_t{63};
  stubs_size_ = pages(threads_ * stub_step_);
  exec_size_ = stubs_size_ + blob.data_offset;
  control_at_ = pages(blob.mem_size - blob.data_offset);
  slots_at_ = control_at_ + pages(sizeof(compel_control));
  stacks_at_ = slots_at_ + pages((threads_ + 1) * sizeof(compel_slot));
  xsaves_at_ = stacks_at_ + leader_stack + threads_ * thread_stack;
  xsave_step_ = vectors_ ? arch::xsave_size() : 0;
  shared_at_ = xsaves_at_ + pages((threads_ + 1) * xsave_step_);
  total_ = exec_size_ + shared_at_ + data_size_;
}

// What is only run, and over its end what is written.
void compel_parasite::map_into_task() {
  Thread& leader = task_->thread(0);
  const auto map = [](std::uint64_t at, std::size_t size, int protection, int flags) {
    return compel_task::Call{SYS_mmap,
                             {at, size, static_cast<std::uint64_t>(protection),
                              static_cast<std::uint64_t>(flags | MAP_SHARED | MAP_ANONYMOUS), ~std::uint64_t{0}, 0}};
  };
  const auto got = task_->run_quick(leader, 2, [&](std::size_t index, std::int64_t before) {
    if (index == 0) {
      return map(0, total_, PROT_READ | PROT_EXEC, 0);
    }
    base_ = static_cast<std::uint64_t>(before);
    return map(base_ + exec_size_, total_ - exec_size_, PROT_READ | PROT_WRITE, MAP_FIXED);
  });
  try {
    if (got < 0 && got > -4096) {
      throw base::Error("map " + std::to_string(total_) + " bytes in", procfs::describe(task_->pid()),
                        static_cast<int>(-got));
    }
    exec_ = map_here(base_, exec_size_);
    memory_ = map_here(base_ + exec_size_, total_ - exec_size_);
  } catch (const Gone&) {
    throw;
  } catch (...) {
    unmap_from_task();
    throw;
  }
}

void compel_parasite::unmap_from_task() {
  if (base_ != 0) {
    task_->run_quick(task_->thread(0), 1, [this](std::size_t, std::int64_t) {
      return compel_task::Call{SYS_munmap, {base_, total_, 0, 0, 0, 0}};
    });
  }
}

base::Mapping compel_parasite::map_here(std::uint64_t address, std::size_t size) {
  char path[96];
  const unsigned long long end = address + size;
  std::snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", task_->pid(),
                static_cast<unsigned long long>(address), end);
  const base::Fd fd(base::check(::open(path, O_RDWR | O_CLOEXEC), "open", path,
                                "CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the first user namespace is needed"));
  base::Mapping mapping(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0), size);
  if (!mapping) {
    throw base::Error("map", path, errno);
  }
  return mapping;
}

void compel_parasite::place(const compel_blob& blob) {
  unsigned char* code = reinterpret_cast<unsigned char*>(exec_.data()) + stubs_size_;
  unsigned char* data = reinterpret_cast<unsigned char*>(memory_.data());
  const std::size_t code_size = std::min(blob.size, blob.data_offset);
  std::memcpy(code, blob.image, code_size);
  std::memcpy(data, blob.image + code_size, blob.size - code_size);
  const std::uint64_t start = base_ + stubs_size_;
  for (std::uint64_t i = 0; i < blob.relocation_count; ++i) {
    const compel_relocation& entry = blob.relocations[i];
    if (entry.offset > blob.mem_size - 8 || (entry.offset < blob.data_offset && entry.offset + 8 > blob.data_offset)) {
      throw base::Error("load a blob", procfs::describe(task_->pid()), EINVAL, "a relocation lies outside of it");
    }
    const std::uint64_t value = start + static_cast<std::uint64_t>(entry.addend);
    std::memcpy(entry.offset < blob.data_offset ? code + entry.offset : data + (entry.offset - blob.data_offset),
                &value, sizeof value);
  }
  control_ = reinterpret_cast<compel_control*>(data + control_at_);
  shared_ = reinterpret_cast<char*>(data) + shared_at_;
  control_->channel[0] = control_->channel[1] = -1;
  control_->data = remote(shared_);
  control_->data_size = data_size_;
}

std::uint64_t compel_parasite::remote(const void* here) const {
  return base_ + exec_size_ +
         static_cast<std::uint64_t>(static_cast<const char*>(here) - reinterpret_cast<const char*>(memory_.data()));
}

std::uint64_t compel_parasite::symbol(const std::string& name) const {
  for (const auto& [known, offset] : symbols_) {
    if (known == name) {
      return base_ + stubs_size_ + offset;
    }
  }
  throw base::Error("find in the blob", name, ENOENT,
                    name == "compel_enter" ? "the blob is not linked with the runtime" : "it exports no such symbol");
}

void compel_parasite::require_task() const {
  if (task_ == nullptr) {
    throw Gone("enter", "a task that has been released", ESRCH);
  }
}

std::uint64_t compel_parasite::argument_address(std::size_t offset) const {
  if (offset > data_size_) {
    throw base::Error("call", "argument at offset " + std::to_string(offset), EINVAL,
                      "the shared area has " + std::to_string(data_size_) + " bytes");
  }
  return remote(shared_ + offset);
}

compel_slot& compel_parasite::slot(std::size_t index) const {
  return *(reinterpret_cast<compel_slot*>(memory_.data() + slots_at_) + index);
}

std::uint64_t compel_parasite::stack_end(std::size_t index) const {
  return remote(memory_.data() + stacks_at_ + leader_stack + index * thread_stack);
}

std::uint64_t compel_parasite::xsave_of(std::size_t index) const {
  return vectors_ ? remote(memory_.data() + xsaves_at_ + index * xsave_step_) : 0;
}

// Brings one thread in. Its slot and its stub are ready before it is touched, and the slot opens when nothing can
// interrupt the thread any more.
void compel_parasite::enter(Run& run) {
  Thread& thread = *run.thread;
  compel_slot& at = slot(run.slot);
  at.control = remote(control_);
  at.stub = run.stub;
  at.xsave = xsave_of(run.slot);
  at.stack = stack_end(run.slot);
  if (vectors_) {
    thread.keep_vectors();
  }
  user_regs_struct registers = thread.saved().home;
  registers.rip = symbol("compel_enter");
  registers.rdi = remote(&at);
  registers.orig_rax = ~0ull;
  registers.eflags &= ~0x40500ull;  // no single step, direction up, no alignment checks
  thread.borrow(registers);
  __atomic_store_n(&at.open, 1u, __ATOMIC_RELEASE);
  run.entered = true;
  thread.resume(PTRACE_CONT);
}

void compel_parasite::start() {
  require_task();
  if (resident_) {
    throw base::Error("start", procfs::describe(task_->pid()), EBUSY, "its parasite is resident already");
  }
  Run run;
  run.thread = &task_->thread(0);
  stub_ = task_->place_stub(*run.thread, base_);
  run.stub = stub_.address();
  std::memset(&slot(0), 0, sizeof(compel_slot));
  slot(0).unmap_base = base_;
  slot(0).unmap_size = total_;
  lock_life();
  try {
    enter(run);
  } catch (...) {
    unlock_life();
    stub_.clear();
    throw;
  }
  resident_ = true;
}

void compel_parasite::stop() {
  require_task();
  if (!resident_) {
    throw base::Error("stop", procfs::describe(task_->pid()), EINVAL, "its parasite is not resident");
  }
  Thread& leader = task_->thread(0);
  outstanding_ = false;
  await_answer(leader, slot(0));
  resident_ = false;
  leader.stop_inside();
  leader.give_back(stub_.address());
  stub_.clear();
  unlock_life();
}

void compel_parasite::leave_after_crash(Run& run) {
  run.thread->stop_crashed();
  run.thread->give_back(run.stub);
  run.entered = false;
}

void compel_parasite::await_answer(Thread& thread, compel_slot& at) {
  try {
    while (!compel::answered(at)) {
      if (!compel::wait_for_answer(at)) {
        thread.poll();
      }
    }
  } catch (const compel::Crash&) {
    if (&at == &slot(0)) {
      Run run;
      run.thread = &thread;
      run.stub = stub_.address();
      resident_ = false;
      leave_after_crash(run);
      stub_.clear();
      unlock_life();
    }
    throw;
  } catch (const Gone&) {
    if (&at == &slot(0)) {
      resident_ = false;
      unlock_life();
    }
    throw;
  }
}

void compel_parasite::post_raw(std::uint64_t entry, std::uint64_t argument) {
  require_task();
  if (!resident_) {
    throw base::Error("post", procfs::describe(task_->pid()), EINVAL, "its parasite is not resident");
  }
  compel_slot& at = slot(0);
  if (outstanding_) {
    throw base::Error("post", procfs::describe(task_->pid()), EBUSY, "the last command has not been waited for");
  }
  at.entry = entry;
  at.argument = argument;
  outstanding_ = true;
  compel::ring(at, life_word());
}

void compel_parasite::post(const char* entry, std::size_t argument) {
  post_raw(symbol(entry), argument_address(argument));
}

long compel_parasite::wait() {
  require_task();
  if (!outstanding_) {
    throw base::Error("wait", procfs::describe(task_->pid()), EINVAL, "no command has been posted");
  }
  outstanding_ = false;
  await_answer(task_->thread(0), slot(0));
  return slot(0).result;
}

long compel_parasite::command(std::uint64_t entry, std::uint64_t argument) {
  post_raw(entry, argument);
  return wait();
}

long compel_parasite::call(const char* entry, std::size_t argument) {
  require_task();
  const std::uint64_t where = symbol(entry), what = argument_address(argument);
  if (resident_) {
    return command(where, what);
  }
  start();
  const long result = command(where, what);
  stop();
  return result;
}

int compel_parasite::give_fd(int fd) {
  require_task();
  if (!resident_) {
    start();
    try {
      const int given = give_fd(fd);
      stop();
      return given;
    } catch (...) {
      if (resident_) {
        stop();
      }
      throw;
    }
  }
  const auto refuse = [&](long error) {
    throw base::Error("give a descriptor", procfs::describe(task_->pid()), static_cast<int>(-error),
                      error == -EMFILE ? "no free slot among its descriptors" : "");
  };
  const long opened = command(COMPEL_BUILTIN_CHANNEL, 1);
  if (opened < 0) {
    refuse(opened);
  }
  long given = -1;
  try {
    const base::Fd end(task_->take_fd(control_->channel[1]));
    compel::send_descriptor(end.get(), fd);
    given = command(COMPEL_BUILTIN_RECEIVE, 0);
  } catch (const Gone&) {
    throw;
  } catch (...) {
    if (resident_) {
      command(COMPEL_BUILTIN_CHANNEL, 0);
    }
    throw;
  }
  command(COMPEL_BUILTIN_CHANNEL, 0);
  if (given < 0) {
    refuse(given);
  }
  return static_cast<int>(given);
}

void compel_parasite::call_threads(const pid_t* tids, std::size_t count, const char* entry, std::size_t argument,
                                   std::size_t stride, long* results) {
  require_task();
  const std::uint64_t where = symbol(entry);
  if (count != 0) {
    argument_address(argument + stride * (count - 1));
  }
  const bool alone = !resident_;
  if (alone) {
    lock_life();
  }
  try {
    for (std::size_t done = 0; done < count;) {
      const std::size_t some = std::min(count - done, threads_);
      run_batch(tids + done, some, where, argument_address(argument + done * stride), stride,
                results == nullptr ? nullptr : results + done);
      done += some;
    }
  } catch (...) {
    if (alone) {
      unlock_life();
    }
    throw;
  }
  if (alone) {
    unlock_life();
  }
}

void compel_parasite::run_batch(const pid_t* tids, std::size_t count, std::uint64_t entry, std::uint64_t argument,
                                std::size_t stride, long* results) {
  std::vector<Run> runs(count);
  for (std::size_t i = 0; i < count; ++i) {
    runs[i].thread = &task_->thread(tids[i]);
    if (inside(*runs[i].thread)) {
      throw base::Error("run", runs[i].thread->describe(), EBUSY, "it is inside a resident parasite");
    }
  }
  __atomic_store_n(&control_->threads_inside, static_cast<std::uint32_t>(count), __ATOMIC_RELEASE);
  std::exception_ptr failure;
  try {
    for (std::size_t i = 0; i < count; ++i) {
      Run& run = runs[i];
      run.slot = i + 1;
      run.stub = base_ + i * stub_step_;
      const std::vector<unsigned char> bytes =
          compel::make_stub(run.thread->stub_registers(), run.thread->saved().mask, base_);
      std::memcpy(exec_.data() + i * stub_step_, bytes.data(), bytes.size());
      compel_slot& at = slot(run.slot);
      std::memset(&at, 0, sizeof at);
      at.entry = entry;
      at.argument = argument + i * stride;
      at.posted = 1;
      enter(run);
    }
  } catch (...) {
    failure = std::current_exception();
  }
  finish_batch(runs, results);
  __atomic_store_n(&control_->threads_inside, 0u, __ATOMIC_RELEASE);
  if (failure) {
    std::rethrow_exception(failure);
  }
}

// Waits for all who came in, and puts all of them back, whatever became of the others.
void compel_parasite::finish_batch(std::vector<Run>& runs, long* results) {
  std::exception_ptr failure;
  const auto guard = [&failure](Run& run, auto step) {
    if (!run.entered) {
      return;
    }
    try {
      step(run);
    } catch (...) {
      run.entered = false;
      failure = failure ? failure : std::current_exception();
    }
  };
  for (std::size_t i = 0; i < runs.size(); ++i) {
    guard(runs[i], [&](Run& run) {
      try {
        await_answer(*run.thread, slot(run.slot));
      } catch (const compel::Crash&) {
        leave_after_crash(run);
        throw;
      }
      if (results != nullptr) {
        results[i] = slot(run.slot).result;
      }
    });
  }
  for (Run& run : runs) {
    guard(run, [](Run& of) { of.thread->interrupt(); });
  }
  for (Run& run : runs) {
    guard(run, [](Run& of) {
      of.thread->await_trap();
      of.thread->give_back(of.stub);
    });
  }
  if (failure) {
    std::rethrow_exception(failure);
  }
}

std::size_t compel_parasite::log(char* buffer, std::size_t size) {
  if (control_ == nullptr) {
    return 0;
  }
  const std::uint32_t head = __atomic_load_n(&control_->log_head, __ATOMIC_ACQUIRE);
  std::size_t filled = 0;
  if (head - log_seen_ > COMPEL_LOG_SIZE) {
    const std::uint32_t lost = head - log_seen_ - COMPEL_LOG_SIZE;
    char note[64];
    const int length = std::snprintf(note, sizeof note, "[%u bytes of the log are lost]\n", lost);
    if (static_cast<std::size_t>(length) > size) {
      return 0;
    }
    std::memcpy(buffer, note, static_cast<std::size_t>(length));
    filled = static_cast<std::size_t>(length);
    log_seen_ += lost;
  }
  while (filled < size && log_seen_ != head) {
    buffer[filled++] = static_cast<char>(control_->log[log_seen_++ % COMPEL_LOG_SIZE]);
  }
  return filled;
}

void compel_parasite::unload() {
  if (task_ == nullptr) {
    return;
  }
  compel_task& task = *task_;
  try {
    if (resident_) {
      stop();
    }
    if (!task.released()) {
      unmap_from_task();
    }
  } catch (...) {
    abandon();
    throw;
  }
  abandon();
}

void compel_parasite::abandon() noexcept {
  if (task_ != nullptr && task_->parasite == this) {
    task_->parasite = nullptr;
  }
  task_ = nullptr;
  resident_ = false;
  stub_.clear();
  unlock_life();
  if (mutex_made_) {
    ::pthread_mutex_destroy(reinterpret_cast<pthread_mutex_t*>(control_->mutex));
    mutex_made_ = false;
  }
}
