// SPDX-License-Identifier: LGPL-2.1-only
// What a task is made of besides memory and files: one file per object, each with both directions.
#pragma once

#include <core.pb.h>

#include "restorer/builder.hpp"
#include "task/checkpoint.hpp"

namespace criu::task {

// signals.cpp: actions, and the signals that wait to be delivered to the process or to one thread.
void plan_signals(const TaskImage&, restorer::Builder&);
void plan_pending(const images::signal_queue_entry&, restorer::Builder&, restorer::Ref<restorer::PendingSignal>&,
                  std::uint32_t& count);

// timers.cpp: interval timers and POSIX timers.
void plan_timers(const TaskImage&, restorer::Builder&);

// credentials.cpp: ids, groups, capabilities, securebits; per thread.
void plan_credentials(const images::creds_entry&, restorer::Builder&, restorer::Credentials&);

// limits.cpp
void plan_limits(const TaskImage&, restorer::Plan&);

// seccomp.cpp: strict mode and filter chains.
void plan_seccomp(const Checkpoint&, const images::thread_core_entry&, const std::string& who, restorer::Builder&,
                  restorer::Thread&);

// thread.cpp: what remains of a thread.
void plan_threads(const Checkpoint&, const TaskImage&, restorer::Builder&);

}  // namespace criu::task
