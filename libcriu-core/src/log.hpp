// SPDX-License-Identifier: LGPL-2.1-only
// The log. The level decides before the arguments are formatted.
#pragma once

#include <fmt/format.h>

#include <string_view>

namespace criu::log {

// The numbers are the ones of `-v`.
enum Level : int { message = 0, error = 1, warning = 2, info = 3, debug = 4 };

// Sends the log to a descriptor (stderr until then) from this level down.
void open(int fd, int level);
int level();
inline bool on(Level at) { return at <= level(); }
void write(Level at, const char* file, int line, std::string_view text);

}  // namespace criu::log

#define CRIU_LOG(at, ...)                                                        \
  do {                                                                           \
    if (::criu::log::on(at)) {                                                   \
      ::criu::log::write(at, __FILE_NAME__, __LINE__, fmt::format(__VA_ARGS__)); \
    }                                                                            \
  } while (false)
#define LOG_ERROR(...) CRIU_LOG(::criu::log::error, __VA_ARGS__)
#define LOG_WARN(...) CRIU_LOG(::criu::log::warning, __VA_ARGS__)
#define LOG_INFO(...) CRIU_LOG(::criu::log::info, __VA_ARGS__)
#define LOG_DEBUG(...) CRIU_LOG(::criu::log::debug, __VA_ARGS__)
