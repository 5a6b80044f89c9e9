// SPDX-License-Identifier: LGPL-2.1-only
#include "kernel/fdinfo_marks.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <charconv>
#include <optional>

#include "base/error.hpp"

namespace criu::kernel {

using base::Error;

namespace {

[[noreturn]] void unknown(std::string_view line) {
  throw Error("read fdinfo", "this line is not understood: '" + std::string(line.substr(0, 300)) + "'", 0);
}

template <typename Visit>
void for_each_line(std::string_view text, std::string_view prefix, Visit visit) {
  while (!text.empty()) {
    const auto end = text.find('\n');
    const auto line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.starts_with(prefix)) {
      visit(line);
    }
  }
}

// What stands behind " name" within a line of several such pairs.
std::optional<std::string_view> value_of(std::string_view line, std::string_view name) {
  for (std::size_t at = 0; (at = line.find(name, at)) != std::string_view::npos; at += name.size()) {
    if (at > 0 && line[at - 1] == ' ') {
      const auto from = at + name.size();
      return line.substr(from, line.find(' ', from) - from);
    }
  }
  return std::nullopt;
}

template <typename Number>
bool parse(std::string_view text, Number& value, int base) {
  const auto* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value, base);
  return result.ec == std::errc{} && result.ptr == end;
}

template <typename Number>
void take(std::string_view line, std::string_view name, Number& value) {
  const auto found = value_of(line, name);
  if (!found || !parse(*found, value, 16)) {
    unknown(line);
  }
}

// A filesystem that cannot tell leaves these out.
FileHandle take_handle(std::string_view line) {
  FileHandle handle;
  const auto bytes = value_of(line, "f_handle:");
  if (!bytes || !value_of(line, "fhandle-type:")) {
    return handle;
  }
  std::size_t size = 0;
  take(line, "fhandle-bytes:", size);
  take(line, "fhandle-type:", handle.type);
  if (bytes->size() != size * 2) {
    unknown(line);
  }
  for (std::size_t i = 0; i < size; ++i) {
    unsigned char byte = 0;
    if (!parse(bytes->substr(i * 2, 2), byte, 16)) {
      unknown(line);
    }
    handle.bytes.push_back(static_cast<char>(byte));
  }
  return handle;
}

void take_masks(std::string_view line, WatchMark& mark) {
  take(line, "mask:", mark.mask);
  take(line, "ignored_mask:", mark.ignored_mask);
}

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  for (std::size_t at = 0; (at = line.find_first_not_of(" \t", at)) != std::string_view::npos;) {
    const auto end = std::min(line.find_first_of(" \t", at), line.size());
    words.push_back(line.substr(at, end - at));
    at = end;
  }
  return words;
}

int lock_type(std::string_view line, std::string_view word) {
  return word == "READ" ? F_RDLCK : word == "WRITE" ? F_WRLCK : word == "UNLCK" ? F_UNLCK : (unknown(line), 0);
}

int mandatory_type(std::string_view line, std::string_view word) {
  return LOCK_MAND | (word == "READ"    ? LOCK_READ
                      : word == "WRITE" ? LOCK_WRITE
                      : word == "RW"    ? LOCK_RW
                      : word == "NONE"  ? 0
                                        : (unknown(line), 0));
}

// "lock: 1: POSIX  ADVISORY  WRITE 42 fe:00:4711 0 EOF"
FileLock parse_lock(std::string_view line) {
  const auto words = words_of(line);
  constexpr std::size_t count = 9;
  if (words.size() != count) {
    unknown(line);
  }
  const auto kind = words[2], mode = words[3], type = words[4], start = words[7], end = words[8];
  FileLock lock;
  lock.kind = kind == "POSIX"    ? FileLock::Kind::posix
              : kind == "FLOCK"  ? FileLock::Kind::flock
              : kind == "OFDLCK" ? FileLock::Kind::ofd
              : kind == "LEASE"  ? FileLock::Kind::lease
                                 : (unknown(line), FileLock::Kind::posix);
  if (mode == "MSNFS") {
    lock.mandatory = mandatory_type(line, type);
  } else {
    lock.type = lock_type(line, type);
  }
  lock.breaking = mode == "BREAKING";
  if (!parse(words[5], lock.pid, 10) || !parse(start, lock.start, 10)) {
    unknown(line);
  }
  if (end != "EOF") {
    if (std::int64_t last = 0; parse(end, last, 10) && last >= lock.start) {
      lock.length = last - lock.start + 1;
    } else {
      unknown(line);
    }
  }
  return lock;
}

}  // namespace

std::vector<WatchMark> inotify_marks(std::string_view text) {
  std::vector<WatchMark> marks;
  for_each_line(text, "inotify ", [&](std::string_view line) {
    WatchMark mark;
    take(line, "wd:", mark.wd);
    take(line, "ino:", mark.ino);
    take(line, "sdev:", mark.dev);
    take_masks(line, mark);
    mark.handle = take_handle(line);
    marks.push_back(std::move(mark));
  });
  return marks;
}

FanotifyGroup fanotify_group(std::string_view text) {
  FanotifyGroup group;
  for_each_line(text, "fanotify ", [&](std::string_view line) {
    if (value_of(line, "event-flags:")) {
      take(line, "flags:", group.flags);
      take(line, "event-flags:", group.event_flags);
      return;
    }
    WatchMark mark;
    take(line, "mflags:", mark.flags);
    take_masks(line, mark);
    if (value_of(line, "ino:")) {
      take(line, "ino:", mark.ino);
      take(line, "sdev:", mark.dev);
      mark.handle = take_handle(line);
    } else if (value_of(line, "mnt_id:")) {
      mark.on = WatchMark::On::mount;
      take(line, "mnt_id:", mark.mnt_id);
    } else if (value_of(line, "sdev:")) {
      mark.on = WatchMark::On::filesystem;
      take(line, "sdev:", mark.dev);
    } else {
      unknown(line);  // of a mount namespace, for one (Linux 6.15)
    }
    group.marks.push_back(std::move(mark));
  });
  return group;
}

std::vector<FileLock> file_locks(std::string_view text) {
  std::vector<FileLock> locks;
  for_each_line(text, "lock:", [&](std::string_view line) { locks.push_back(parse_lock(line)); });
  return locks;
}

}  // namespace criu::kernel
