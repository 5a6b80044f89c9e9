// SPDX-License-Identifier: LGPL-2.1-only
// What a task is made of besides memory and files: one file per object, each with both directions.
#pragma once

#include <core.pb.h>

#include "kernel/procfs.hpp"
#include "parasite/protocol.hpp"
#include "restorer/builder.hpp"
#include "restorer/inherited.hpp"
#include "task/checkpoint.hpp"
#include "task/frozen.hpp"

namespace criu::task {

// signals.cpp: actions, and the signals that wait to be delivered to the process or to one thread.
void save_signals(pid_t pid, const parasite::ProcessInfo&, images::task_core_entry&);
images::signal_queue_entry save_pending(pid_t tid, bool shared);
void plan_signals(const TaskImage&, const restorer::Inherited&, restorer::Builder&);
void plan_pending(const images::signal_queue_entry&, restorer::Builder&, restorer::Ref<restorer::PendingSignal>&,
                  std::uint32_t& count);

// timers.cpp: interval timers and POSIX timers.
void save_timers(const std::vector<procfs::Timer>& known, const parasite::ProcessInfo&,
                 const std::vector<parasite::Timer>&, images::task_timers_entry&);
void plan_timers(const TaskImage&, restorer::Builder&);

// credentials.cpp: ids, groups, capabilities, securebits; per thread.
void save_credentials(const procfs::Status&, const parasite::ThreadInfo&, images::creds_entry&);
void plan_credentials(const RestoreContext&, const images::creds_entry&, restorer::Builder&, restorer::Credentials&);

// The highest capability the running kernel knows: images of newer kernels may name more. Asked once.
std::uint32_t last_capability();

// limits.cpp
void save_limits(pid_t pid, const procfs::Task&, images::task_rlimits_entry&);
void plan_limits(const RestoreContext&, const TaskImage&, restorer::Plan&);

// seccomp.cpp: strict mode and filter chains.
// `filters` collects the chains of the whole tree.
void save_seccomp(pid_t tid, const procfs::Status&, images::seccomp_entry& filters, images::thread_core_entry&);
void plan_seccomp(const Checkpoint&, const TaskImage&, restorer::Builder&, std::vector<restorer::Thread>&);

// thread.cpp: what remains of a thread.
void save_thread(pid_t tid, const parasite::ThreadInfo&, const ThreadRseq&, images::thread_core_entry&);
void plan_threads(const RestoreContext&, const TaskImage&, restorer::Builder&);
// Of threads whose users may not do it themselves, once they exist.
void schedule_threads(const RestoreContext&);

}  // namespace criu::task
