// SPDX-License-Identifier: LGPL-2.1-only
#include "log.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <vector>

namespace criu::log {

int current_level = warning;

namespace {

struct Held {
  Level at;
  const char* file;
  int line;
  std::string text;
};

int log_fd = STDERR_FILENO;
bool on_stderr = true;
pid_t speaker = 0;
Listener listener = nullptr;
void* of_listener = nullptr;
std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
bool holding = false;
std::vector<Held> held;
std::string kept_error;

// One write a line: several processes of a restore share the file.
void put(const std::string& line) { [[maybe_unused]] const auto done = ::write(log_fd, line.data(), line.size()); }

void let_go() {
  holding = false;
  for (const auto& line : held) {
    if (line.at <= current_level) {
      put(format_line(line.at, current_level, {}, line.file, line.line, line.text));
    }
  }
  held.clear();
}

}  // namespace

void open(int fd, int at) {
  log_fd = fd;
  on_stderr = fd == STDERR_FILENO;
  current_level = at;
  start = std::chrono::steady_clock::now();
  let_go();
}

void hold() {
  holding = true;
  // Which of them are wanted is known only when the log opens.
  current_level = debug;
}

void release(int at) {
  if (holding) {
    current_level = at;
    let_go();
  }
}

void move_above(int lowest) {
  if (const int moved = ::fcntl(log_fd, F_DUPFD_CLOEXEC, lowest); moved >= 0) {
    log_fd = moved;
  }
}

void continue_in(int fd) { ::dup3(fd, log_fd, O_CLOEXEC); }

int descriptor() { return log_fd; }

bool is_stderr() { return on_stderr; }

int level() { return current_level; }

void speak_as(pid_t pid) { speaker = pid; }

void listen(Listener to, void* context) {
  listener = to;
  of_listener = context;
}

std::string format_line(Level at, int level, const Stamp& stamp, const char* file, int line, std::string_view text) {
  std::string out;
  if (level >= info) {
    const auto us = stamp.since_start.count();
    // Always twelve characters: readers cut them off by number, so a late second costs a digit of its fraction.
    out = fmt::format("({:.9}) ", fmt::format("{:02}.{:06}", us / 1000000, us % 1000000));
  }
  if (stamp.speaker != 0) {
    out += fmt::format("{:6d}: ", stamp.speaker);
  }
  if (at == error) {
    out += fmt::format("Error ({}:{}): ", file, line);
  } else if (at == warning) {
    out += fmt::format("Warn  ({}:{}): ", file, line);
  }
  out.append(text);
  out += '\n';
  return out;
}

void write(Level at, const char* file, int line, std::string_view text) {
  if (listener != nullptr) {
    listener(at, std::string(text).c_str(), of_listener);
  }
  if (at == error && kept_error.empty()) {
    kept_error = format_line(at, error, {}, file, line, text);
  }
  if (holding) {
    held.push_back({at, file, line, std::string(text)});
    return;
  }
  const auto age = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  put(format_line(at, current_level, {age, speaker}, file, line, text));
}

const std::string& first_error() { return kept_error; }

void forget_first_error() { kept_error.clear(); }

void say(std::string_view text) {
  const auto line = std::string(text) + '\n';
  [[maybe_unused]] const auto done = ::write(STDOUT_FILENO, line.data(), line.size());
}

}  // namespace criu::log
