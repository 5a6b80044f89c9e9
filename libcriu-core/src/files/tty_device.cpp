// SPDX-License-Identifier: LGPL-2.1-only
#include "files/tty_device.hpp"

#include <asm/termbits.h>
#include <fmt/format.h>
#include <linux/tty.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cstring>

#include "base/error.hpp"

namespace criu::files {

using base::check;
using base::Error;

TtyClass tty_class(dev_t device) {
  const auto major = gnu_dev_major(device), minor = gnu_dev_minor(device);
  switch (major) {
    case 4:
      return minor < 64 ? TtyClass::vt : TtyClass::other;
    case 5:
      return minor == 0   ? TtyClass::current
             : minor == 1 ? TtyClass::console
             : minor == 2 ? TtyClass::master
                          : TtyClass::other;
    case 188:
    case 204:
      return TtyClass::other;
    default:
      return major >= 136 && major <= 143 ? TtyClass::slave : TtyClass::none;
  }
}

std::string tty_key(std::uint32_t rdev, std::uint32_t dev) { return fmt::format("tty[{:x}:{:x}]", rdev, dev); }

namespace {

// The format has room for 19 words, but CRIU packs the characters into the first of them as they lie in memory, and
// leaves the others as it found its own.
constexpr int control_words = 19;
static_assert(NCCS <= control_words * sizeof(std::uint32_t));

// A speed that none of the flags stands for; else the format's own fields for it say 0.
bool any_speed(std::uint32_t c_cflag) { return (c_cflag & CBAUD) == BOTHER || (c_cflag >> IBSHIFT & CBAUD) == BOTHER; }

template <typename Termios>
void put(const Termios& termios, images::termios_entry& entry) {
  entry.set_c_iflag(termios.c_iflag);
  entry.set_c_oflag(termios.c_oflag);
  entry.set_c_cflag(termios.c_cflag);
  entry.set_c_lflag(termios.c_lflag);
  entry.set_c_line(termios.c_line);
  entry.set_c_ispeed(0);
  entry.set_c_ospeed(0);
  std::uint32_t words[control_words] = {};
  std::memcpy(words, termios.c_cc, NCCS);
  for (const auto word : words) {
    entry.add_c_cc(word);
  }
}

template <typename Termios>
void get(const images::termios_entry& entry, Termios& termios, const std::string& what) {
  if (entry.c_cc_size() < control_words) {
    throw Error("corrupt checkpoint", fmt::format("{}: {} control characters", what, entry.c_cc_size()), 0);
  }
  termios.c_iflag = entry.c_iflag();
  termios.c_oflag = entry.c_oflag();
  termios.c_cflag = entry.c_cflag();
  termios.c_lflag = entry.c_lflag();
  termios.c_line = static_cast<cc_t>(entry.c_line());
  std::uint32_t words[control_words];
  std::copy_n(entry.c_cc().begin(), control_words, words);
  std::memcpy(termios.c_cc, words, NCCS);
}

}  // namespace

bool save_tty_state(int fd, images::tty_info_entry& info, const std::string& what) {
  termios2 settings{};
  int exclusive = 0;
  if (::ioctl(fd, TCGETS2, &settings) < 0) {
    if (errno == EIO) {
      info.set_exclusive(false);
      return false;
    }
    check(-1, "read the settings of", what);
  }
  int discipline = 0;
  check(::ioctl(fd, TIOCGETD, &discipline), "read the line discipline of", what);
  if (discipline != N_TTY) {
    throw Error("not supported by this version",
                fmt::format("{} is a line of a network protocol or device (line discipline {})", what, discipline), 0);
  }
  put(settings, *info.mutable_termios());
  if (any_speed(settings.c_cflag)) {
    info.mutable_termios()->set_c_ispeed(settings.c_ispeed);
    info.mutable_termios()->set_c_ospeed(settings.c_ospeed);
  }
  termios locked{};
  check(::ioctl(fd, TIOCGLCKTRMIOS, &locked), "read the locked settings of", what);
  put(locked, *info.mutable_termios_locked());
  winsize size{};
  check(::ioctl(fd, TIOCGWINSZ, &size), "read the size of", what);
  info.mutable_winsize()->set_ws_row(size.ws_row);
  info.mutable_winsize()->set_ws_col(size.ws_col);
  info.mutable_winsize()->set_ws_xpixel(size.ws_xpixel);
  info.mutable_winsize()->set_ws_ypixel(size.ws_ypixel);
  check(::ioctl(fd, TIOCGEXCL, &exclusive), "ask who may open", what);
  info.set_exclusive(exclusive != 0);
  return true;
}

void restore_tty_settings(int fd, const images::tty_info_entry& info, const std::string& what) {
  if (info.has_termios()) {
    termios2 settings{};
    check(::ioctl(fd, TCGETS2, &settings), "read the settings of", what);
    get(info.termios(), settings, what);
    if (any_speed(settings.c_cflag) && info.termios().c_ospeed() != 0) {
      settings.c_ispeed = info.termios().c_ispeed();
      settings.c_ospeed = info.termios().c_ospeed();
    }
    check(::ioctl(fd, TCSETS2, &settings), "set the settings of", what);
  }
}

void restore_tty_locks(int fd, const images::tty_info_entry& info, const std::string& what) {
  if (info.has_termios_locked()) {
    termios locked{}, none{};
    get(info.termios_locked(), locked, what);
    if (std::memcmp(&locked, &none, sizeof none) != 0) {
      check(::ioctl(fd, TIOCSLCKTRMIOS, &locked), "lock the settings of", what);
    }
  }
}

void restore_tty_size(int fd, const images::tty_info_entry& info, const std::string& what) {
  if (!info.has_winsize()) {
    return;
  }
  winsize size{};
  size.ws_row = static_cast<unsigned short>(info.winsize().ws_row());
  size.ws_col = static_cast<unsigned short>(info.winsize().ws_col());
  size.ws_xpixel = static_cast<unsigned short>(info.winsize().ws_xpixel());
  size.ws_ypixel = static_cast<unsigned short>(info.winsize().ws_ypixel());
  check(::ioctl(fd, TIOCSWINSZ, &size), "set the size of", what);
}

bool has_size(int fd, const images::tty_info_entry& info) {
  winsize size{};
  return !info.has_winsize() || ::ioctl(fd, TIOCGWINSZ, &size) < 0 ||
         (size.ws_row == info.winsize().ws_row() && size.ws_col == info.winsize().ws_col());
}

}  // namespace criu::files
