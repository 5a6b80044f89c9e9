// SPDX-License-Identifier: LGPL-2.1-only
#include "log.hpp"

#include <unistd.h>

#include <chrono>
#include <string>

namespace criu::log {

namespace {

int log_fd = STDERR_FILENO;
int log_level = warning;
std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();

}  // namespace

void open(int fd, int at) {
  log_fd = fd;
  log_level = at;
  start = std::chrono::steady_clock::now();
}

int level() { return log_level; }

void write(Level at, const char* file, int line, std::string_view text) {
  std::string out;
  if (log_level >= info) {
    const auto us =
        std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start).count();
    out = fmt::format("({:02}.{:06}) ", us / 1000000, us % 1000000);
  }
  if (at == error) {
    out += fmt::format("Error ({}:{}): ", file, line);
  } else if (at == warning) {
    out += fmt::format("Warn  ({}:{}): ", file, line);
  }
  out.append(text);
  out += '\n';
  // One write a line: several processes of a restore share the file.
  [[maybe_unused]] const auto done = ::write(log_fd, out.data(), out.size());
}

}  // namespace criu::log
