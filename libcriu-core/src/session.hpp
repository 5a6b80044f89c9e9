// SPDX-License-Identifier: LGPL-2.1-only
// What surrounds a command that has a process to itself: who may run it, its directories, its log, and the small files
// and descriptors by which it tells others how far it is.
#pragma once

#include <sys/types.h>

#include "base/error.hpp"
#include "options.hpp"

namespace criu {

// The caller lacks the rights; the text is meant for a terminal as it is.
class PrivilegeError : public base::Error {
 public:
  explicit PrivilegeError(std::string text) : base::Error(std::move(text), {}, 0) {}
};

void check_privileges(const Options& options);

// Makes sure of the image directory, goes to the work directory, opens the log there and writes its head. After it the
// options hold absolute names.
void start_session(Options& options, Command command);

// For a process that becomes a restored task: its lines of the log tell its pid, or go to a file of their own
// (--log-pid).
void log_as_task(const Options& options, pid_t pid);

// The file for --pidfile, which must not exist: someone else's pid would be lost. Nothing without the option.
void write_pidfile(const Options& options, pid_t pid);
// Tells who waits at --status-fd that the service is ready.
void tell_ready(const Options& options);

}  // namespace criu
