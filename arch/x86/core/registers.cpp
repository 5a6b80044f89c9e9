// SPDX-License-Identifier: LGPL-2.1-only
// What is peculiar about x86-64 here:
//
// The vector state has no fixed layout: CPUID leaf 0xD tells where each component lies. ptrace always speaks the
// standard (non-compacted) form and always in full length, the length for all of XCR0, even for components a thread
// has never used. The image stores each component it knows in a field of its own, so an image moves between CPUs with
// different layouts as long as the components' sizes agree.
//
// A component whose bit in xstate_bv is clear is in its initial state, and its bytes in the buffer mean nothing.
#include "core/registers.hpp"

#include <cpuid.h>
#include <elf.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "base/error.hpp"

namespace criu::arch {

using base::check;
using base::Error;

namespace {

#ifndef NT_X86_XSTATE
constexpr int NT_X86_XSTATE = 0x202;
#endif

constexpr std::size_t legacy_size = 512;
constexpr std::size_t header_at = 512;
constexpr std::size_t mxcsr_mask_at = 28;

enum Component : unsigned {
  x87 = 0,
  sse = 1,
  ymm = 2,
  bndregs = 3,
  bndcsr = 4,
  opmask = 5,
  zmm_hi256 = 6,
  hi16_zmm = 7,
  pkru = 9
};

struct Place {
  std::size_t offset, size;
};

constexpr unsigned most_components = 32;

// Where a component lies on this CPU; size 0: it has none. Asked once: under a hypervisor each CPUID costs
// microseconds.
Place place_of(unsigned component) {
  static const auto places = [] {
    std::array<Place, most_components> all{};
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    __cpuid_count(0xd, 0, eax, ebx, ecx, edx);
    const auto present = eax;
    for (unsigned number = 0; number < most_components; ++number) {
      if ((present >> number & 1) != 0) {
        __cpuid_count(0xd, number, eax, ebx, ecx, edx);
        all[number] = {ebx, eax};
      }
    }
    return all;
  }();
  return component < most_components ? places[component] : Place{0, 0};
}

template <typename T>
T load(const std::vector<std::byte>& area, std::size_t at) {
  T value;
  std::memcpy(&value, area.data() + at, sizeof value);
  return value;
}

template <typename T>
void store(std::vector<std::byte>& area, std::size_t at, T value) {
  std::memcpy(area.data() + at, &value, sizeof value);
}

// Copies a component between the area and a repeated field of T.
template <typename T, typename Field>
void save_component(const std::vector<std::byte>& area, unsigned component, Field* field) {
  const auto place = place_of(component);
  const bool used = (load<std::uint64_t>(area, header_at) >> component & 1) != 0;
  if (place.size == 0 || place.offset + place.size > area.size()) {
    return;
  }
  field->Resize(static_cast<int>(place.size / sizeof(T)), T{0});
  if (used) {
    std::memcpy(field->mutable_data(), area.data() + place.offset, place.size / sizeof(T) * sizeof(T));
  }
}

template <typename T, typename Field>
void restore_component(std::vector<std::byte>& area, unsigned component, const Field& field, std::uint64_t& present) {
  if ((present >> component & 1) == 0) {
    return;
  }
  const auto place = place_of(component);
  if (field.empty()) {
    present &= ~(std::uint64_t{1} << component);
    return;
  }
  if (place.size != field.size() * sizeof(T) || place.offset + place.size > area.size()) {
    throw Error("cannot restore vector registers",
                fmt::format("component {} has {} bytes in the image and {} on this CPU", component,
                            field.size() * sizeof(T), place.size),
                0, "this CPU differs from the one of the dump");
  }
  for (int i = 0; i < field.size(); ++i) {
    store<T>(area, place.offset + static_cast<std::size_t>(i) * sizeof(T), field.Get(i));
  }
}

void save_legacy(const std::vector<std::byte>& area, images::user_x86_fpregs_entry& fp) {
  fp.set_cwd(load<std::uint16_t>(area, 0));
  fp.set_swd(load<std::uint16_t>(area, 2));
  fp.set_twd(load<std::uint16_t>(area, 4));
  fp.set_fop(load<std::uint16_t>(area, 6));
  fp.set_rip(load<std::uint64_t>(area, 8));
  fp.set_rdp(load<std::uint64_t>(area, 16));
  fp.set_mxcsr(load<std::uint32_t>(area, 24));
  fp.set_mxcsr_mask(load<std::uint32_t>(area, mxcsr_mask_at));
  fp.mutable_st_space()->Resize(32, 0);
  std::memcpy(fp.mutable_st_space()->mutable_data(), area.data() + 32, 128);
  fp.mutable_xmm_space()->Resize(64, 0);
  std::memcpy(fp.mutable_xmm_space()->mutable_data(), area.data() + 160, 256);
}

void restore_legacy(std::vector<std::byte>& area, const images::user_x86_fpregs_entry& fp) {
  store(area, 0, static_cast<std::uint16_t>(fp.cwd()));
  store(area, 2, static_cast<std::uint16_t>(fp.swd()));
  store(area, 4, static_cast<std::uint16_t>(fp.twd()));
  store(area, 6, static_cast<std::uint16_t>(fp.fop()));
  store(area, 8, fp.rip());
  store(area, 16, fp.rdp());
  // Bits that this CPU does not know would make the kernel refuse the whole.
  store(area, 24, fp.mxcsr() & load<std::uint32_t>(area, mxcsr_mask_at));
  for (int i = 0; i < 32; ++i) {
    store(area, 32 + static_cast<std::size_t>(i) * 4, fp.st_space(i));
  }
  for (int i = 0; i < 64; ++i) {
    store(area, 160 + static_cast<std::size_t>(i) * 4, fp.xmm_space(i));
  }
}

// The x87 and SSE bits may be clear (initial state), but the legacy fields of an image are always valid.
void normalise_legacy(std::vector<std::byte>& area) {
  const auto present = load<std::uint64_t>(area, header_at);
  const auto mask = load<std::uint32_t>(area, mxcsr_mask_at);
  if ((present >> x87 & 1) == 0) {
    std::memset(area.data(), 0, 24);
    std::memset(area.data() + 32, 0, 128);
    store<std::uint16_t>(area, 0, 0x37f);
  }
  if ((present >> sse & 1) == 0) {
    std::memset(area.data() + 160, 0, 256);
    if ((present >> ymm & 1) == 0) {
      store<std::uint32_t>(area, 24, 0x1f80);
    }
  }
  store(area, mxcsr_mask_at, mask);
}

void save_general(const user_regs_struct& r, images::user_x86_regs_entry& g) {
  g.set_r15(r.r15), g.set_r14(r.r14), g.set_r13(r.r13), g.set_r12(r.r12);
  g.set_r11(r.r11), g.set_r10(r.r10), g.set_r9(r.r9), g.set_r8(r.r8);
  g.set_bp(r.rbp), g.set_bx(r.rbx), g.set_ax(r.rax), g.set_cx(r.rcx);
  g.set_dx(r.rdx), g.set_si(r.rsi), g.set_di(r.rdi), g.set_orig_ax(r.orig_rax);
  g.set_ip(r.rip), g.set_cs(r.cs), g.set_flags(r.eflags), g.set_sp(r.rsp), g.set_ss(r.ss);
  g.set_fs_base(r.fs_base), g.set_gs_base(r.gs_base);
  g.set_ds(r.ds), g.set_es(r.es), g.set_fs(r.fs), g.set_gs(r.gs);
  g.set_mode(images::NATIVE);
}

user_regs_struct general_from(const images::user_x86_regs_entry& g) {
  user_regs_struct r{};
  r.r15 = g.r15(), r.r14 = g.r14(), r.r13 = g.r13(), r.r12 = g.r12();
  r.r11 = g.r11(), r.r10 = g.r10(), r.r9 = g.r9(), r.r8 = g.r8();
  r.rbp = g.bp(), r.rbx = g.bx(), r.rax = g.ax(), r.rcx = g.cx();
  r.rdx = g.dx(), r.rsi = g.si(), r.rdi = g.di();
  r.rip = g.ip(), r.rsp = g.sp(), r.eflags = g.flags();
  r.cs = g.cs(), r.ss = g.ss();
  r.fs_base = g.fs_base(), r.gs_base = g.gs_base();
  r.ds = g.ds(), r.es = g.es(), r.fs = g.fs(), r.gs = g.gs();
  // Not in a system call: what was to be issued again has been wound back at dump.
  r.orig_rax = ~0ULL;
  return r;
}

constexpr long erestartsys = 512, erestartnointr = 513, erestartnohand = 514, erestart_restartblock = 516;

}  // namespace

std::vector<std::byte> read_extended(pid_t tid) {
  std::vector<std::byte> area(16384);
  for (;;) {
    iovec io{area.data(), area.size()};
    if (::ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &io) < 0) {
      if (errno == ENODEV || errno == EIO || errno == EINVAL) {
        return {};
      }
      throw Error("read vector registers", fmt::format("thread {}", tid), errno);
    }
    if (io.iov_len < area.size()) {
      area.resize(io.iov_len);
      return area;
    }
    area.resize(area.size() * 2);
  }
}

bool has_protection_keys() {
  static const bool has = [] {
    constexpr unsigned ospke = 1U << 4;  // the processor has them, and the kernel uses them
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ecx & ospke) != 0;
  }();
  return has;
}

std::uint32_t xstate_to_request(std::uint64_t permitted) {
  constexpr int get_permitted = 0x1022;  // ARCH_GET_XCOMP_PERM, 5.16
  std::uint64_t own = 0;
  if (permitted == 0 || ::syscall(SYS_arch_prctl, get_permitted, &own) != 0) {
    return 0;
  }
  const auto missing = permitted & ~own;
  return missing == 0 ? 0 : static_cast<std::uint32_t>(63 - __builtin_clzll(missing));
}

namespace {

constexpr std::uint64_t known_components = 1U << x87 | 1U << sse | 1U << ymm | 1U << bndregs | 1U << bndcsr |
                                           1U << opmask | 1U << zmm_hi256 | 1U << hi16_zmm | 1U << pkru;

void save_unknown(const std::vector<std::byte>& area, images::thread_extension& extension) {
  const auto present = load<std::uint64_t>(area, header_at) & ~known_components;
  for (unsigned number = 0; number < most_components; ++number) {
    const auto place = place_of(number);
    if ((present >> number & 1) != 0 && place.size != 0 && place.offset + place.size <= area.size()) {
      auto& component = *extension.add_xstate();
      component.set_number(number);
      component.set_contents(area.data() + place.offset, place.size);
    }
  }
}

std::uint64_t restore_unknown(std::vector<std::byte>& area, const images::thread_extension& extension) {
  std::uint64_t present = 0;
  for (const auto& component : extension.xstate()) {
    const auto place = place_of(component.number());
    if (place.size == 0 || place.size != component.contents().size() || place.offset + place.size > area.size()) {
      throw Error("cannot restore vector registers",
                  fmt::format("this CPU has no XSAVE component {} of {} bytes", component.number(),
                              component.contents().size()),
                  0);
    }
    std::memcpy(area.data() + place.offset, component.contents().data(), place.size);
    present |= std::uint64_t{1} << component.number();
  }
  return present;
}

}  // namespace

namespace {

// What system call a thread is in that shows as restart_syscall: it was interrupted before, by a stop or a tracer, and
// the kernel has replaced the number. The instructions before the call tell what was there; -1: they do not.
long number_before_restart(const user_regs_struct& regs, const ReadMemory& memory) {
  constexpr std::size_t window = 32;
  unsigned char code[window];
  if (!memory(regs.rip - 2 - window, code, window)) {
    return -1;
  }
  for (std::size_t at = window - 5 + 1; at-- > 0;) {
    std::uint32_t number = 0;
    std::memcpy(&number, code + at + 1, sizeof number);
    constexpr unsigned char mov_eax = 0xb8;
    if (code[at] == mov_eax &&
        (number == SYS_nanosleep || number == SYS_clock_nanosleep || number == SYS_poll || number == SYS_futex)) {
      return number;
    }
  }
  return -1;
}

// The kernel writes what is left of a relative sleep to where the caller wants it, if anywhere.
void save_sleep(const user_regs_struct& regs, const ReadMemory& memory, images::core_entry& core) {
  const bool plain = regs.orig_rax == SYS_nanosleep;
  const auto remainder = plain ? regs.rsi : regs.r10;
  std::uint64_t left[2];
  constexpr std::uint64_t billion = 1000000000;
  if (remainder == 0 || !memory(remainder, left, sizeof left) || left[1] >= billion) {
    return;
  }
  auto& sleep = *core.mutable_thread_core()->mutable_extension()->mutable_sleep();
  sleep.set_clock(plain ? 1 : static_cast<std::uint32_t>(regs.rdi));  // CLOCK_MONOTONIC
  sleep.set_left_sec(left[0]);
  sleep.set_left_nsec(left[1]);
  sleep.set_remainder(remainder);
}

}  // namespace

Interrupted save_registers(const Registers& registers, const ReadMemory& memory, images::core_entry& core) {
  auto general = registers.general;
  auto interrupted = Interrupted::none;
  if (static_cast<long>(general.orig_rax) >= 0) {
    const auto result = -static_cast<long>(general.rax);
    if (result == erestartsys || result == erestartnointr || result == erestartnohand ||
        result == erestart_restartblock) {
      // The last of them goes on with the rest of its time, which the kernel has noted in a place nobody can read.
      // Where the caller has it written to memory it is saved; else the call is issued again in full, since a program
      // that was never sent a signal does not expect EINTR.
      auto number = static_cast<long>(general.orig_rax);
      if (result == erestart_restartblock) {
        if (number == SYS_restart_syscall) {
          number = number_before_restart(general, memory);
          general.orig_rax = static_cast<unsigned long long>(number);
        }
        if (general.orig_rax == SYS_nanosleep || general.orig_rax == SYS_clock_nanosleep) {
          save_sleep(general, memory, core);
        }
      }
      if (number >= 0) {
        general.rax = general.orig_rax;
        general.rip -= 2;
        interrupted = Interrupted::restarts;
      } else {
        general.rax = static_cast<unsigned long long>(-EINTR);
      }
    }
  }
  auto& info = *core.mutable_thread_info();
  save_general(general, *info.mutable_gpregs());

  auto area = registers.extended;
  if (area.size() < legacy_size + 64) {
    throw Error("not supported by this version", "a CPU without XSAVE", 0);
  }
  auto& fp = *info.mutable_fpregs();
  auto& xsave = *fp.mutable_xsave();
  xsave.set_xstate_bv(load<std::uint64_t>(area, header_at));
  save_component<std::uint32_t>(area, ymm, xsave.mutable_ymmh_space());
  save_component<std::uint64_t>(area, bndregs, xsave.mutable_bndreg_state());
  save_component<std::uint64_t>(area, bndcsr, xsave.mutable_bndcsr_state());
  save_component<std::uint64_t>(area, opmask, xsave.mutable_opmask_reg());
  save_component<std::uint64_t>(area, zmm_hi256, xsave.mutable_zmm_upper());
  save_component<std::uint64_t>(area, hi16_zmm, xsave.mutable_hi16_zmm());
  save_component<std::uint32_t>(area, pkru, xsave.mutable_pkru());
  if ((load<std::uint64_t>(area, header_at) & ~known_components) != 0) {
    save_unknown(area, *core.mutable_thread_core()->mutable_extension());
  }
  normalise_legacy(area);
  save_legacy(area, fp);
  // Three slots of thread-local segments, unused by 64-bit tasks.
  for (std::uint32_t slot = 12; slot <= 14; ++slot) {
    auto& tls = *info.add_tls();
    tls.set_entry_number(slot), tls.set_base_addr(0), tls.set_limit(0), tls.set_seg_32bit(false);
    tls.set_contents_h(false), tls.set_contents_l(false), tls.set_read_exec_only(true), tls.set_limit_in_pages(false);
    tls.set_seg_not_present(true), tls.set_usable(false);
  }
  return interrupted;
}

namespace {

// The thread was put to sleep again in the restorer, with what was left. Stopped in that sleep, it goes on sleeping by
// the kernel's own means; when the time was over before, the call is done.
void resume_sleep(user_regs_struct& general, bool asleep) {
  const auto number = general.rax;
  general.rip += 2;
  if (asleep) {
    general.orig_rax = number;
    general.rax = static_cast<unsigned long long>(-erestart_restartblock);
  } else {
    general.rax = 0;
  }
}

}  // namespace

namespace {

user_regs_struct registers_now(pid_t tid) {
  user_regs_struct now{};
  check(::ptrace(PTRACE_GETREGS, tid, nullptr, &now), "read registers of", fmt::format("thread {}", tid));
  return now;
}

}  // namespace

Sleeping where_asleep(pid_t tid) {
  const auto now = registers_now(tid);
  if (now.orig_rax == SYS_clock_nanosleep && static_cast<long>(now.rax) == -erestart_restartblock) {
    return Sleeping::asleep;
  }
  return now.orig_rax == SYS_futex && now.rsi == FUTEX_WAIT ? Sleeping::over : Sleeping::not_yet;
}

bool enters_sleep(pid_t tid) {
  const auto now = registers_now(tid);
  return now.orig_rax == SYS_clock_nanosleep && static_cast<long>(now.rax) == -ENOSYS;
}

bool enters_gate(pid_t tid) {
  const auto now = registers_now(tid);
  return now.orig_rax == SYS_futex && now.rsi == FUTEX_WAIT && static_cast<long>(now.rax) == -ENOSYS;
}

void restore_registers(pid_t tid, const images::core_entry& core, bool asleep) {
  const auto& info = core.thread_info();
  const auto what = fmt::format("thread {}", tid);
  if (info.gpregs().mode() != images::NATIVE) {
    throw Error("not supported by this version", what + " is a 32-bit task", 0);
  }
  const auto& fp = info.fpregs();
  if (fp.st_space_size() < 32 || fp.xmm_space_size() < 64) {
    throw Error("corrupt checkpoint", what + ": floating point registers are missing", 0);
  }
  auto area = read_extended(tid);
  std::uint64_t present = (fp.has_xsave() ? fp.xsave().xstate_bv() : 0) | 1U << x87 | 1U << sse;
  const auto& xsave = fp.xsave();
  restore_component<std::uint32_t>(area, ymm, xsave.ymmh_space(), present);
  restore_component<std::uint64_t>(area, bndregs, xsave.bndreg_state(), present);
  restore_component<std::uint64_t>(area, bndcsr, xsave.bndcsr_state(), present);
  restore_component<std::uint64_t>(area, opmask, xsave.opmask_reg(), present);
  restore_component<std::uint64_t>(area, zmm_hi256, xsave.zmm_upper(), present);
  restore_component<std::uint64_t>(area, hi16_zmm, xsave.hi16_zmm(), present);
  restore_component<std::uint32_t>(area, pkru, xsave.pkru(), present);
  const auto beyond = restore_unknown(area, core.thread_core().extension());
  restore_legacy(area, fp);
  std::memset(area.data() + header_at, 0, 64);
  store(area, header_at, (present & known_components) | beyond);
  iovec io{area.data(), area.size()};
  check(::ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &io), "set vector registers", what);
  auto general = general_from(info.gpregs());
  if (core.thread_core().extension().has_sleep()) {
    resume_sleep(general, asleep);
  }
  iovec general_io{&general, sizeof general};
  check(::ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, &general_io), "set registers", what);
}

}  // namespace criu::arch
