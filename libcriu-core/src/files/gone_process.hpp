// SPDX-License-Identifier: LGPL-2.1-only
// Files of /proc that tell of a process. One of a process that is gone is made again while a stand-in has its pid.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "files/kind.hpp"

namespace criu::files {

// Whom a path tells of ("/proc/PID/…", "/proc/PID/task/TID/…"); 0: nobody.
struct ToldOf {
  pid_t process = 0;
  pid_t thread = 0;
};
ToldOf told_of(std::string_view path);

// Records that the process of this path is gone; `id` is of the file's entry.
void save_gone_process(Saver&, const Description&, std::uint32_t id, const std::string& path);

}  // namespace criu::files
