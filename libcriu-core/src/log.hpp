// SPDX-License-Identifier: LGPL-2.1-only
// The log. The level decides before the arguments are formatted.
//
// It writes by itself rather than through spdlog: loading that library costs 0.7 ms (docs/performance.md), a good part
// of what the dump of a small process may take in all.
#pragma once

#include <fmt/format.h>
#include <sys/types.h>

#include <chrono>
#include <string>
#include <string_view>

namespace criu::log {

// The numbers are the ones of `-v`.
enum Level : int { message = 0, error = 1, warning = 2, info = 3, debug = 4 };

// Sends the log to a descriptor (stderr until then) from this level down. What was held comes first.
void open(int fd, int level);
// Keeps lines back until `open`, or until `release` gives up and sends them to stderr.
void hold();
void release(int level);
// Moves the log's descriptor out of the way of lower ones.
void move_above(int lowest);
// Goes on in another file, without a new start of the time; the log's descriptor keeps its number.
void continue_in(int fd);
int descriptor();
// Whether it was opened there, wherever its descriptor is by now.
bool is_stderr();
int level();
// Every line from now on tells who speaks: for restored tasks, as they share one file. 0: nobody.
void speak_as(pid_t pid);
// Lines go to a function as well, without the newline; null ends that.
using Listener = void (*)(int level, const char* line, void* of_listener);
void listen(Listener listener, void* of_listener);

extern int current_level;  // kept where the macro can see it: a line that is not wanted costs one comparison
inline bool on(Level at) { return at <= current_level; }
void write(Level at, const char* file, int line, std::string_view text);
// A hint for the person at the terminal, at any level: to stdout.
void say(std::string_view text);

// The first line of level error, as it stands in the file but for when and who, since the last call of `forget`.
const std::string& first_error();
void forget_first_error();

// A line as it stands in the file, newline included.
struct Stamp {
  std::chrono::microseconds since_start{};
  pid_t speaker = 0;
};
std::string format_line(Level at, int level, const Stamp& stamp, const char* file, int line, std::string_view text);

}  // namespace criu::log

#define CRIU_LOG(at, ...)                                                        \
  do {                                                                           \
    if (::criu::log::on(at)) {                                                   \
      ::criu::log::write(at, __FILE_NAME__, __LINE__, fmt::format(__VA_ARGS__)); \
    }                                                                            \
  } while (false)
#define LOG_MESSAGE(...) ::criu::log::say(fmt::format(__VA_ARGS__))
#define LOG_ERROR(...) CRIU_LOG(::criu::log::error, __VA_ARGS__)
#define LOG_WARN(...) CRIU_LOG(::criu::log::warning, __VA_ARGS__)
#define LOG_INFO(...) CRIU_LOG(::criu::log::info, __VA_ARGS__)
#define LOG_DEBUG(...) CRIU_LOG(::criu::log::debug, __VA_ARGS__)
