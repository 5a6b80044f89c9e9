// SPDX-License-Identifier: LGPL-2.1-only
// Which terminals there are, by their device numbers, and what can be asked of one and set again.
#pragma once

#include <sys/types.h>
#include <tty.pb.h>

#include <cstdint>
#include <string>

namespace criu::files {

enum class TtyClass {
  none,     // no terminal
  master,   // of a pty
  slave,    // of a pty
  current,  // /dev/tty: what controls who opens it
  console,  // /dev/console
  vt,       // a virtual console, or the one that is shown (/dev/tty0)
  other,    // serial lines and the like, whose state is not known
};

TtyClass tty_class(dev_t device);

// How images encode the number of a terminal: the lower half of what stat() shows. /proc/PID/stat has the same.
inline std::uint32_t tty_number(dev_t device) { return static_cast<std::uint32_t>(device); }

// The name by which options speak of a terminal outside of the tree.
std::string tty_key(std::uint32_t rdev, std::uint32_t dev);

// Line settings, their locks, size and exclusiveness. False: the terminal has been hung up, and has none of these.
bool save_tty_state(int fd, images::tty_info_entry& info, const std::string& what);
// The same, in the other direction. An end without settings of its own in the image keeps what it has.
void restore_tty_settings(int fd, const images::tty_info_entry& info, const std::string& what);
void restore_tty_locks(int fd, const images::tty_info_entry& info, const std::string& what);
void restore_tty_size(int fd, const images::tty_info_entry& info, const std::string& what);
bool has_size(int fd, const images::tty_info_entry& info);

}  // namespace criu::files
