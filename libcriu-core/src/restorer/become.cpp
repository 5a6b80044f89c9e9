// SPDX-License-Identifier: LGPL-2.1-only
#include "restorer/become.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.hpp"
#include "core/registers.hpp"
#include "files/io_uring.hpp"
#include "files/regular.hpp"
#include "memory/vdso.hpp"
#include "restorer/builder.hpp"
#include "task/last_pid.hpp"
#include "task/objects.hpp"

namespace criu::restorer {

using base::Error;

namespace {

constexpr std::uint64_t page = memory::page_size;
std::uint64_t pages_for(std::uint64_t bytes) { return (bytes + page - 1) / page * page; }
std::byte* pointer(std::uint64_t address) { return reinterpret_cast<std::byte*>(address); }  // NOLINT

// The parts of the region, in this order; all page-aligned.
struct Layout {
  std::uint64_t code = 0, plan = 0, stacks = 0, shared = 0, vdso = 0, size = 0;

  Layout(std::uint64_t contents, std::uint32_t threads, std::uint64_t shared_size, std::uint64_t vdso_size) {
    plan = pages_for(restorer::code().size());
    stacks = plan + pages_for(contents);
    shared = stacks + pages_for(std::uint64_t{threads} * stack_size);
    vdso = shared + pages_for(shared_size);
    size = vdso + pages_for(vdso_size);
  }
};

void plan_mm(const RestoreContext& context, const TaskImage& task, Builder& builder, base::Fd& exe) {
  const auto& mm = task.mm;
  constexpr int auxv_words = 44;  // AT_VECTOR_SIZE on x86-64
  if (mm.mm_saved_auxv_size() > auxv_words) {
    throw Error("corrupt checkpoint", fmt::format("auxiliary vector of {}", task.name()), 0);
  }
  exe = files::open_path(context, mm.exe_file_id(), O_RDONLY, "the executable of " + task.name());
  const std::vector<std::uint64_t> auxv(mm.mm_saved_auxv().begin(), mm.mm_saved_auxv().end());
  const auto ref = builder.add(auxv);
  auto& plan = builder.plan();
  plan.auxv = ref;
  plan.mm = {mm.mm_start_code(),
             mm.mm_end_code(),
             mm.mm_start_data(),
             mm.mm_end_data(),
             mm.mm_start_brk(),
             mm.mm_brk(),
             mm.mm_start_stack(),
             mm.mm_arg_start(),
             mm.mm_arg_end(),
             mm.mm_env_start(),
             mm.mm_env_end(),
             0,
             static_cast<std::uint32_t>(auxv.size() * sizeof(std::uint64_t)),
             exe.get()};
  plan.protection_keys = mm.extension().protection_keys();
  for (const auto& vma : mm.vmas()) {
    if (memory::is_execute_only(vma) && vma.extension().protection_key() != 0) {
      plan.execute_only_key = vma.extension().protection_key() & 15;
    }
  }
  plan.lock_future = mm.extension().lock_future();
  plan.thp_disable = mm.thp_disabled() ? 1 : 0;
  plan.dumpable = mm.dumpable() == 1 ? 1 : 0;
  plan.child_subreaper = task.core.tc().child_subreaper() ? 1 : 0;
  plan.membarrier = task.core.tc().membarrier_registration_mask();
  const auto& extension = task.core.tc().extension();
  plan.personality = extension.personality();
  // What is not said is the usual one, and not the one this program happens to have been started with.
  plan.set_personality = extension.has_personality() || context.inherited.personality != 0 ? 1 : 0;
  plan.mdwe = extension.mdwe();
  plan.xstate_request = arch::xstate_to_request(extension.xstate_permitted());
}

void plan_memory(const RestoreContext& context, const TaskImage& task, memory::Restored& memory, Builder& builder) {
  const auto areas = memory.areas(context, task);
  const auto areas_ref = builder.add(areas);
  const auto guards = memory.guards(task);
  const auto guards_ref = builder.add(guards);
  auto& plan = builder.plan();
  plan.areas = areas_ref;
  plan.area_count = static_cast<std::uint32_t>(areas.size());
  plan.guards = guards_ref;
  plan.guard_count = static_cast<std::uint32_t>(guards.size());
}

void plan_late_steps(Builder& builder) {
  std::vector<LateStep> steps;
  for (const auto& step : files::take_ring_steps()) {
    LateStep late{};
    late.number = step.number;
    std::copy(std::begin(step.args), std::end(step.args), late.args);
    late.data = builder.add(step.data);
    late.data_at = step.data_at;
    late.expected = step.expected;
    std::strncpy(late.what, step.what, sizeof late.what - 1);
    steps.push_back(late);
  }
  const auto ref = builder.add(steps);
  builder.plan().late_steps = ref;
  builder.plan().late_step_count = static_cast<std::uint32_t>(steps.size());
}

void plan_vdso(const memory::OwnVdso& own, const memory::Restored& memory, std::uint64_t parking, memory::Space& space,
               Plan& plan) {
  const auto& vdso = memory.vdso_plan();
  if (vdso.code == nullptr) {
    return;
  }
  const auto home = vdso.proxy ? space.find_remote(own.size(), page) : memory::vdso_home(own, vdso);
  const auto parts = memory::move_vdso(own, parking, home);
  if (parts.size() > std::size(plan.vdso)) {
    throw Error("not supported by this version", "a vDSO of so many mappings", 0);
  }
  std::copy(parts.begin(), parts.end(), plan.vdso);
  plan.vdso_parts = static_cast<std::uint32_t>(parts.size());
  if (vdso.proxy) {
    memory::redirect_vdso(memory.saved_vdso(), vdso, own, home);
    const auto mark = memory::vdso_mark(own, vdso, home);
    std::copy(std::begin(mark.words), std::end(mark.words), plan.vdso_mark);
    plan.vdso_mark_at = home + own.data_size();
    plan.vdso_mark_size = own.code.end - own.code.start;
  }
}

// What survives the fall of the old address space, ascending.
std::vector<Range> keep_ranges(const memory::Restored& memory, std::uint64_t region, std::uint64_t size) {
  std::vector<Range> keep{{region, region + size}};
  for (const auto& parked : memory.parked()) {
    keep.push_back({parked.start, parked.end});
  }
  std::sort(keep.begin(), keep.end(), [](const Range& a, const Range& b) { return a.start < b.start; });
  return keep;
}

// The C library registered an area for this thread; the restored thread registers its own.
void unregister_rseq() {
  auto* area = static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset;
  // What was registered is the original 32 bytes, or, by newer C libraries, the size of the features.
  for (const unsigned size : {32U, __rseq_size, (__rseq_size + 31) / 32 * 32}) {
    if (size != 0 && ::syscall(SYS_rseq, area, size, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) == 0) {
      return;
    }
  }
}

void enter(const Surroundings& surroundings, const TaskImage& task) {
  if (surroundings.mounts >= 0) {
    base::check(::setns(surroundings.mounts, CLONE_NEWNS), "enter the mount namespace of", task.name());
  }
  if (surroundings.root) {
    base::check(::fchdir(surroundings.root.get()), "enter the root directory of", task.name());
    base::check(::chroot("."), "change the root directory of", task.name());
  }
  base::check(::fchdir(surroundings.directory.get()), "change directory for", task.name());
}

[[noreturn]] void jump(std::uint64_t entry, std::uint64_t plan, std::uint64_t stack) {
  // The stack of a function at its entry: 8 bytes off a multiple of 16.
  asm volatile(
      "mov %[stack], %%rsp\n\t"
      "xor %%ebp, %%ebp\n\t"
      "push %%rbp\n\t"
      "jmp *%[entry]"
      :
      : [stack] "S"(stack), [entry] "a"(entry), "D"(plan)  // none of them where %rbp is
      : "memory");
  __builtin_unreachable();
}

}  // namespace

void become(RestoreContext& context, const TaskImage& task, memory::Restored& memory, const Surroundings& surroundings,
            Region& region) {
  Builder builder;
  base::Fd exe;
  auto last_pid = task::LastPid::needed() ? context.internal(task::LastPid::open()) : base::Fd();
  plan_mm(context, task, builder, exe);
  plan_memory(context, task, memory, builder);
  plan_late_steps(builder);
  task::plan_signals(task, context.inherited, builder);
  task::plan_timers(task, builder);
  task::plan_threads(context, task, builder);
  task::plan_limits(context, task, builder.plan());
  context.objects.locks.plan(task, builder);

  // The number of ranges to keep does not depend on where the region comes to lie; make room for them first.
  const auto keep_ref = builder.add(keep_ranges(memory, 0, 1));
  const auto& own_vdso = context.inherited.vdso;
  const Layout layout(builder.contents(), builder.plan().thread_count, context.shared_size, own_vdso.size());
  memory::Space space;
  space.take(context.inherited.mappings);
  space.take(context.needed_addresses);
  const auto at = space.map(layout.size, page, PROT_READ | PROT_WRITE, 0);

  plan_vdso(own_vdso, memory, at + layout.vdso, space, builder.plan());
  auto& plan = builder.plan();
  plan.region_start = at;
  plan.region_end = at + layout.size;
  plan.task_size = memory::task_size();
  plan.keep = keep_ref;
  plan.stacks = {layout.stacks - layout.plan};
  plan.first_internal_fd = context.first_internal_fd;
  plan.last_pid_fd = last_pid.get();

  std::memcpy(pointer(at), code().data(), code().size());
  if (::mprotect(pointer(at), layout.plan, PROT_READ | PROT_EXEC) < 0) {
    throw Error("protect the restorer", {}, errno);
  }
  const auto keep = keep_ranges(memory, at, layout.size);
  plan.keep_count = static_cast<std::uint32_t>(keep.size());
  region = {at, layout.size};
  if (::mremap(context.shared, context.shared_size, context.shared_size, MREMAP_MAYMOVE | MREMAP_FIXED,
               pointer(at + layout.shared)) == MAP_FAILED) {
    throw Error("move the shared memory of the restore", {}, errno);
  }
  plan.shared = context.shared = reinterpret_cast<Shared*>(pointer(at + layout.shared));
  enter(surroundings, task);
  std::memcpy(pointer(at + layout.plan), builder.data(), builder.contents());
  std::memcpy(pointer(at + layout.plan) + keep_ref.offset, keep.data(), keep.size() * sizeof(Range));
  // No library code below here that could look at the clock, allocate or log: its memory is about to go.
  exe.release();
  last_pid.release();
  unregister_rseq();
  jump(at, at + layout.plan, at + layout.stacks + stack_size);
}

}  // namespace criu::restorer
