// SPDX-License-Identifier: GPL-2.0-only
#include "notes.hpp"

#include <elf.h>
#include <fmt/format.h>
#include <sys/procfs.h>
#include <sys/user.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.hpp"

namespace coredump {

namespace {

using base::Error;
using crit::TaskState;
namespace pb = crit::pb;

constexpr std::size_t alignment = 4;

void append_note(std::string& to, const char* owner, std::uint32_t type, std::string_view content) {
  const Elf64_Nhdr head{static_cast<Elf64_Word>(std::strlen(owner) + 1), static_cast<Elf64_Word>(content.size()), type};
  std::array<char, 8> name{};
  std::memcpy(name.data(), owner, std::strlen(owner));
  to.append(reinterpret_cast<const char*>(&head), sizeof head);
  to.append(name.data(), name.size());
  to.append(content);
  to.append((0 - content.size()) % alignment, '\0');
}

template <typename Struct>
std::string_view bytes_of(const Struct& one) {
  return {reinterpret_cast<const char*>(&one), sizeof one};
}

// At most as many words as there is room for.
template <typename Words>
void put_words(std::string& area, std::size_t at, std::size_t room, const Words& words) {
  const auto size = std::min(room, static_cast<std::size_t>(words.size()) * sizeof *words.data());
  if (size > 0) {
    std::memcpy(area.data() + at, words.data(), size);
  }
}

// ---- the process
// -----------------------------------------------------------------------------------------------------

std::string arguments_of(const pb::mm_entry& mm, const crit::Pages& pages) {
  std::string text(ELF_PRARGSZ, '\0');
  const auto start = mm.mm_arg_start();
  const auto size = std::min<std::uint64_t>(text.size() - 1, std::max(mm.mm_arg_end(), start) - start);
  pages.copy(start, size, text.data());
  std::replace(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size), '\0', ' ');
  return text;
}

prpsinfo_t process_info(const pb::pstree_entry& task, const pb::core_entry& core, const pb::mm_entry& mm,
                        const crit::Pages& pages) {
  const auto state = static_cast<TaskState>(core.tc().task_state());
  prpsinfo_t info{};
  info.pr_state = state == TaskState::stopped ? 3 : state == TaskState::zombie ? 4 : 0;
  info.pr_sname = state == TaskState::stopped ? 'T' : state == TaskState::zombie ? 'Z' : 'R';
  info.pr_zomb = state == TaskState::zombie ? 1 : 0;
  info.pr_nice = static_cast<char>(core.thread_core().sched_nice());
  info.pr_flag = core.tc().flags();
  info.pr_uid = core.thread_core().creds().uid();
  info.pr_gid = core.thread_core().creds().gid();
  info.pr_pid = static_cast<int>(task.pid());
  info.pr_ppid = static_cast<int>(task.ppid());
  info.pr_pgrp = static_cast<int>(task.pgid());
  info.pr_sid = static_cast<int>(task.sid());
  core.tc().comm().copy(info.pr_fname, sizeof info.pr_fname - 1);
  arguments_of(mm, pages).copy(info.pr_psargs, sizeof info.pr_psargs);
  return info;
}

// start, end and offset of each mapped file, then their names.
std::string mapped_files(const crit::Checkpoint& checkpoint, const pb::mm_entry& mm) {
  std::string places;
  std::string names;
  std::uint64_t count = 0;
  for (const auto& area : mm.vmas()) {
    if ((area.status() & (crit::file_private | crit::file_shared)) == 0) {
      continue;
    }
    const auto path = checkpoint.path_of(static_cast<std::uint32_t>(area.shmid()));
    if (!path) {
      continue;
    }
    const std::uint64_t place[] = {area.start(), area.end(), area.pgoff() / crit::page_size};
    places += bytes_of(place);
    names += *path;
    names += '\0';
    ++count;
  }
  const std::uint64_t head[] = {count, crit::page_size};
  return std::string(bytes_of(head)) + places + names;
}

// ---- a thread
// --------------------------------------------------------------------------------------------------------

prstatus_t status_of(const pb::pstree_entry& task, std::uint32_t tid, const pb::core_entry& core) {
  const auto& from = core.thread_info().gpregs();
  user_regs_struct regs{};
  regs.r15 = from.r15();
  regs.r14 = from.r14();
  regs.r13 = from.r13();
  regs.r12 = from.r12();
  regs.rbp = from.bp();
  regs.rbx = from.bx();
  regs.r11 = from.r11();
  regs.r10 = from.r10();
  regs.r9 = from.r9();
  regs.r8 = from.r8();
  regs.rax = from.ax();
  regs.rcx = from.cx();
  regs.rdx = from.dx();
  regs.rsi = from.si();
  regs.rdi = from.di();
  regs.orig_rax = from.orig_ax();
  regs.rip = from.ip();
  regs.cs = from.cs();
  regs.eflags = from.flags();
  regs.rsp = from.sp();
  regs.ss = from.ss();
  regs.fs_base = from.fs_base();
  regs.gs_base = from.gs_base();
  regs.ds = from.ds();
  regs.es = from.es();
  regs.fs = from.fs();
  regs.gs = from.gs();

  prstatus_t status{};
  static_assert(sizeof status.pr_reg == sizeof regs);
  std::memcpy(&status.pr_reg, &regs, sizeof regs);
  status.pr_pid = static_cast<int>(tid);
  status.pr_ppid = static_cast<int>(task.ppid());
  status.pr_pgrp = static_cast<int>(task.pgid());
  status.pr_sid = static_cast<int>(task.sid());
  status.pr_sighold = core.has_tc() ? core.tc().blk_sigset() : core.thread_core().blk_sigset();
  status.pr_fpvalid = 1;
  return status;
}

// The area that FXSAVE fills.
std::string legacy_registers(const pb::user_x86_fpregs_entry& from) {
  user_fpregs_struct regs{};
  regs.cwd = static_cast<std::uint16_t>(from.cwd());
  regs.swd = static_cast<std::uint16_t>(from.swd());
  regs.ftw = static_cast<std::uint16_t>(from.twd());
  regs.fop = static_cast<std::uint16_t>(from.fop());
  regs.rip = from.rip();
  regs.rdp = from.rdp();
  regs.mxcsr = from.mxcsr();
  regs.mxcr_mask = from.mxcsr_mask();
  std::string area(bytes_of(regs));
  put_words(area, offsetof(user_fpregs_struct, st_space), sizeof regs.st_space, from.st_space());
  put_words(area, offsetof(user_fpregs_struct, xmm_space), sizeof regs.xmm_space, from.xmm_space());
  return area;
}

// The XSAVE area in its standard form. Components stand where Intel's processors have them: debuggers tell the layout
// by the size, and know this one.
std::string extended_registers(const pb::user_x86_fpregs_entry& from) {
  constexpr std::size_t header_at = 512;
  constexpr std::size_t enabled_at = 464;  // where the kernel tells which components there are
  constexpr std::uint64_t x87_and_sse = 3;
  const auto& xsave = from.xsave();
  std::string area = legacy_registers(from);
  area.resize(header_at + 64, '\0');
  std::uint64_t enabled = x87_and_sse;
  const auto component = [&](unsigned number, std::size_t at, std::size_t size, const auto& words) {
    if (words.size() > 0) {
      enabled |= std::uint64_t{1} << number;
      area.resize(std::max(area.size(), at + size), '\0');
      put_words(area, at, size, words);
    }
  };
  component(2, 576, 256, xsave.ymmh_space());
  component(3, 960, 64, xsave.bndreg_state());
  component(4, 1024, 64, xsave.bndcsr_state());
  component(5, 1088, 64, xsave.opmask_reg());
  component(6, 1152, 512, xsave.zmm_upper());
  component(7, 1664, 1024, xsave.hi16_zmm());
  component(9, 2688, 8, xsave.pkru());
  const auto in_use = (xsave.xstate_bv() & enabled) | x87_and_sse;
  std::memcpy(area.data() + enabled_at, &enabled, sizeof enabled);
  std::memcpy(area.data() + header_at, &in_use, sizeof in_use);
  return area;
}

void append_thread(std::string& notes, const pb::pstree_entry& task, std::uint32_t tid, const pb::core_entry& core) {
  if (core.mtype() != pb::core_entry::X86_64 || !core.has_thread_info()) {
    throw Error("no core file", fmt::format("thread {}: its registers are of another processor", tid), 0,
                "only x86_64 is supported");
  }
  if (core.thread_info().gpregs().mode() == pb::COMPAT) {
    throw Error("no core file", fmt::format("task {} runs 32-bit code", task.pid()), 0,
                "only 64-bit tasks are supported");
  }
  const auto& registers = core.thread_info().fpregs();
  append_note(notes, "CORE", NT_PRSTATUS, bytes_of(status_of(task, tid, core)));
  append_note(notes, "CORE", NT_FPREGSET, legacy_registers(registers));
  append_note(notes, "CORE", NT_SIGINFO, std::string(128, '\0'));
  if (registers.has_xsave()) {
    append_note(notes, "LINUX", NT_X86_XSTATE, extended_registers(registers));
  }
}

}  // namespace

std::string notes_of(const crit::Checkpoint& checkpoint, const pb::pstree_entry& task, const pb::mm_entry& mm,
                     const crit::Pages& pages) {
  const auto leader = checkpoint.core(task.pid());
  std::string notes;
  append_note(notes, "CORE", NT_PRPSINFO, bytes_of(process_info(task, leader, mm, pages)));
  for (const auto tid : crit::Checkpoint::threads(task)) {
    append_thread(notes, task, tid, tid == task.pid() ? leader : checkpoint.core(tid));
  }
  std::string auxv(static_cast<std::size_t>(mm.mm_saved_auxv_size()) * sizeof(std::uint64_t), '\0');
  put_words(auxv, 0, auxv.size(), mm.mm_saved_auxv());
  append_note(notes, "CORE", NT_AUXV, auxv);
  append_note(notes, "CORE", NT_FILE, mapped_files(checkpoint, mm));
  return notes;
}

}  // namespace coredump
