// SPDX-License-Identifier: LGPL-2.1-only
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/kcmp.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "base/kernel.hpp"
#include "kernel/probes.hpp"
#include "log.hpp"

namespace criu::kernel::probe {

namespace {

bool opens(const char* path, int flags) {
  const base::Fd fd(::open(path, flags | O_CLOEXEC));
  return fd || lacks(path);
}

bool size_of_mm_map() {
  unsigned size = 0;
  return ::prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0) == 0 || lacks("PR_SET_MM_MAP_SIZE");
}

// A filter that allows everything.
bool filter_self() {
  sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  const sock_fprog program{1, code};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

// The first arguments of clone3, as far as Linux 5.5 knows them.
struct CloneArguments {
  std::uint64_t flags = 0, pidfd = 0, child_tid = 0, parent_tid = 0, exit_signal = SIGCHLD, stack = 0, stack_size = 0,
                tls = 0;
  std::uint64_t set_tid = 0, set_tid_size = 0;
};

}  // namespace

bool ns_last_pid() { return opens("/proc/sys/kernel/ns_last_pid", O_RDWR); }

bool kcmp() {
  const auto self = ::getpid();
  return ::syscall(SYS_kcmp, self, self, KCMP_FILE, 0, 0) >= 0 || errno != ENOSYS || lacks("kcmp");
}

bool prctl_basic() {
  int* address = nullptr;
  return (::prctl(PR_GET_TID_ADDRESS, &address, 0, 0, 0) == 0 || lacks("PR_GET_TID_ADDRESS")) && size_of_mm_map();
}

bool prctl_more() {
  int reaper = 0;
  return (::prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) >= 0 || lacks("PR_GET_THP_DISABLE")) &&
         (::prctl(PR_GET_CHILD_SUBREAPER, &reaper, 0, 0, 0) == 0 || lacks("PR_GET_CHILD_SUBREAPER"));
}

bool proc_stat() {
  const auto text = file_text("/proc/self/stat");
  const auto name_end = text.rfind(')');
  // Behind the name: fields 3 to 52, the last of them the exit code.
  return name_end != text.npos &&
         std::count(text.begin() + static_cast<std::ptrdiff_t>(name_end), text.end(), ' ') >= 50;
}

bool sem_next_id() { return ::geteuid() != 0 || opens("/proc/sys/kernel/sem_next_id", O_RDWR); }

bool sigqueueinfo() {
  return in_child([] {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGUSR1);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    siginfo_t info{};
    info.si_signo = SIGUSR1;
    info.si_code = SI_KERNEL;
    return ::syscall(SYS_rt_sigqueueinfo, ::getpid(), SIGUSR1, &info) == 0 || lacks("rt_sigqueueinfo");
  });
}

bool ptrace_signals() {
  const Tracee tracee;
  __ptrace_peeksiginfo_args arguments{0, 0, 1};
  siginfo_t info{};
  std::uint64_t mask = 0;
  return tracee &&
         (::ptrace(PTRACE_PEEKSIGINFO, tracee.pid(), &arguments, &info) >= 0 || lacks("PTRACE_PEEKSIGINFO")) &&
         (::ptrace(PTRACE_GETSIGMASK, tracee.pid(), sizeof mask, &mask) == 0 || lacks("PTRACE_GETSIGMASK"));
}

bool seccomp_suspend() {
  const Tracee tracee;
  return tracee && (::ptrace(PTRACE_SETOPTIONS, tracee.pid(), nullptr, PTRACE_O_SUSPEND_SECCOMP) == 0 ||
                    lacks("PTRACE_O_SUSPEND_SECCOMP"));
}

bool seccomp_filters() {
  const Tracee tracee(filter_self);
  return tracee && (::ptrace(PTRACE_SECCOMP_GET_FILTER, tracee.pid(), nullptr, nullptr) == 1 ||
                    lacks("PTRACE_SECCOMP_GET_FILTER"));
}

bool posix_timers() { return exists("/proc/self/timers"); }

bool clone_parent_and_pid() {
  return in_child([] {
    const pid_t grandparent = ::getppid();
    const auto pid = ::syscall(SYS_clone, CLONE_PARENT | CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
      ::_exit(0);
    }
    return grandparent > 0 && (pid > 0 || lacks("clone with CLONE_PARENT and CLONE_NEWPID"));
  });
}

bool loginuid() {
  return in_child([] {
    const auto now = file_text("/proc/self/loginuid");
    const base::Fd fd(::open("/proc/self/loginuid", O_RDWR | O_CLOEXEC));
    constexpr std::string_view unset = "4294967295";
    return (fd && !now.empty() && ::pwrite(fd.get(), unset.data(), unset.size(), 0) > 0 &&
            ::pwrite(fd.get(), now.data(), now.size(), 0) > 0) ||
           lacks("/proc/self/loginuid");
  });
}

bool userns() { return exists("/proc/self/ns/user") && size_of_mm_map(); }
bool cgroupns() { return exists("/proc/self/ns/cgroup"); }
bool timens() { return exists("/proc/self/timens_offsets"); }

bool clone3_set_tid() {
  // A pid that was free a moment ago.
  pid_t wanted = ::fork();
  if (wanted == 0) {
    ::_exit(0);
  }
  ::waitpid(wanted, nullptr, 0);
  CloneArguments arguments;
  arguments.set_tid = reinterpret_cast<std::uintptr_t>(&wanted);
  arguments.set_tid_size = 1;
  const auto got = ::syscall(SYS_clone3, &arguments, sizeof arguments);
  if (got == 0) {
    ::_exit(0);
  }
  if (got > 0) {
    ::waitpid(static_cast<pid_t>(got), nullptr, 0);
  }
  return got == wanted || (got < 0 && (errno == EEXIST || lacks("clone3 with set_tid")));
}

bool pidfd_store() {
  const base::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)));
  if (!pidfd) {
    return lacks("pidfd_open");
  }
  const base::Fd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), pidfd.get(), 0)));
  return copy || lacks("pidfd_getfd");
}

bool ns_pid() { return file_text("/proc/self/status").find("\nNSpid:") != std::string::npos; }

bool timer_cr_ids() {
  return ::prctl(base::kernel::pr_timer_create_restore_ids, base::kernel::pr_timer_create_restore_ids_get, 0, 0, 0) >=
             0 ||
         lacks("PR_TIMER_CREATE_RESTORE_IDS");
}

bool get_rseq_conf() {
  const Tracee tracee;
  std::uint64_t configuration[3]{};
  return tracee && (::ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tracee.pid(), sizeof configuration, configuration) ==
                        sizeof configuration ||
                    lacks("PTRACE_GET_RSEQ_CONFIGURATION"));
}

bool breakpoints() {
#ifdef __x86_64__
  const Tracee tracee;
  const auto debug_register = [](std::size_t number) { return offsetof(user, u_debugreg) + number * sizeof(long); };
  return tracee && ((::ptrace(PTRACE_POKEUSER, tracee.pid(), debug_register(0), &tracee) == 0 &&
                     ::ptrace(PTRACE_POKEUSER, tracee.pid(), debug_register(7), 1) == 0) ||
                    lacks("hardware breakpoints"));
#else
  return false;
#endif
}

bool compat_cr() {
  LOG_WARN("32-bit tasks are not supported by this version");
  return false;
}

bool apparmor_active() { return file_text("/sys/module/apparmor/parameters/enabled").starts_with('Y'); }

bool apparmor_stacking() { return file_text("/sys/kernel/security/apparmor/features/domain/stack").starts_with("yes"); }

}  // namespace criu::kernel::probe
