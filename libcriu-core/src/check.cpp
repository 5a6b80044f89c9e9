// SPDX-License-Identifier: LGPL-2.1-only
#include "check.hpp"

#include "base/error.hpp"
#include "kernel/features.hpp"
#include "kernel/probes.hpp"
#include "log.hpp"

namespace criu {

namespace {

namespace probe = kernel::probe;

struct Test {
  const char* name;
  bool (*passes)();
  std::initializer_list<const char*> hint;  // for the person at the terminal when it fails
};

// What no checkpoint can do without, in the order of CRIU's own check: the first failure is the verdict.
const Test basics[] = {
    {"map_files", probe::map_files, {}},
    {"sock_diag",
     probe::sock_diag,
     {"The sock diag infrastructure is incomplete.", "Make sure that the kernel has, built in or as loaded modules:",
      "  CONFIG_UNIX_DIAG, CONFIG_INET_DIAG, CONFIG_INET_UDP_DIAG,", "  CONFIG_PACKET_DIAG and CONFIG_NETLINK_DIAG."}},
    {"ns_last_pid", probe::ns_last_pid, {}},
    {"SO_PEEK_OFF", probe::peek_off, {"SO_PEEK_OFF sockoption doesn't work."}},
    {"kcmp", probe::kcmp, {}},
    {"prctl", probe::prctl_basic, {}},
    {"F_GETOWNER_UIDS", probe::getowner_uids, {}},
    {"/proc/PID/stat", probe::proc_stat, {}},
    {"TCP repair", probe::tcp_basic, {}},
    {"fdinfo", probe::fdinfo_records, {}},
    {"vmsplice", probe::vmsplice_gift, {}},
    {"terminals", probe::locked_pty, {}},
    {"socket filters", probe::socket_filter, {}},
    {"sem_next_id", probe::sem_next_id, {}},
    {"rt_sigqueueinfo", probe::sigqueueinfo, {}},
    {"ptrace of signals", probe::ptrace_signals, {}},
    {"mremap of the vdso", probe::vdso_remap, {}},
};

// What --extra looks at beyond the features that have a name.
const Test extras[] = {
    {"prctl", probe::prctl_more, {}},      {"/proc/PID/timers", probe::posix_timers, {}},
    {"tun", probe::tun_or_no_driver, {}},  {"CLONE_PARENT with CLONE_NEWPID", probe::clone_parent_and_pid, {}},
    {"TCP window", probe::tcp_window, {}},
};

bool passes(const Test& test, const Say& say) {
  if (test.passes()) {
    return true;
  }
  LOG_WARN("{}: does not work as it should", test.name);
  for (const char* line : test.hint) {
    say(line);
  }
  return false;
}

bool check_basics(const Say& say) {
  for (const auto& test : basics) {
    if (!passes(test, say)) {
      LOG_WARN("Does not look good.");
      return false;
    }
  }
  return true;
}

bool check_features(kernel::Wanted wanted) {
  bool all = true;
  for (const auto& feature : kernel::features()) {
    if (feature.wanted == wanted && !feature.supported()) {
      LOG_WARN("feature {} is missing", feature.name);
      all = false;
    }
  }
  return all;
}

bool check_kernel(const Options& options, const Say& say) {
  if (!check_basics(say)) {
    return false;
  }
  bool all = true;
  if (options.check_extra) {
    for (const auto& test : extras) {
      all &= passes(test, say);
    }
    all &= check_features(kernel::Wanted::extra);
    // Faster with them, whole without: no part of the verdict.
    check_features(kernel::Wanted::informative);
    all &= !probe::apparmor_active() || kernel::supported("apparmor_stacking");
  }
  if (options.check_experimental) {
    all &= check_features(kernel::Wanted::experimental);
  }
  if (all) {
    say("Looks good.");
  } else {
    say("Looks good but some kernel features are missing");
    say("which, depending on your process tree, may cause");
    say("dump or restore failure.");
  }
  return all;
}

bool check_feature(const std::string& name, const Say& say) {
  const auto* feature = kernel::find_feature(name);
  if (feature == nullptr) {
    throw base::Error("Unknown feature " + name, {}, 0, "--help lists the names");
  }
  if (!feature->supported()) {
    return false;
  }
  say(name + " is supported");
  return true;
}

bool check_tree(const Options& options, const Say& say) {
  const auto found = obstacles(options);
  for (const auto& obstacle : found) {
    say(obstacle);
  }
  if (found.empty()) {
    say(std::to_string(options.tree) + " can be dumped");
  }
  return found.empty();
}

}  // namespace

bool check(const Options& options, const Say& say) {
  if (options.tree != 0) {
    return check_tree(options, say);
  }
  return options.check_feature.empty() ? check_kernel(options, say) : check_feature(options.check_feature, say);
}

}  // namespace criu
