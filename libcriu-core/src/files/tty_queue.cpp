// SPDX-License-Identifier: LGPL-2.1-only
#include "files/tty_queue.hpp"

#include <asm/termbits.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/error.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// What the kernel has worked through already, of either direction. What is behind waits as it was written, and will be
// treated by the settings of then.
constexpr std::size_t line_buffer = 4095;

// What is taken out is in no file yet: only a SIGKILL may come in between.
class Undisturbed {
 public:
  Undisturbed() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~Undisturbed() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  Undisturbed(const Undisturbed&) = delete;
  Undisturbed& operator=(const Undisturbed&) = delete;

 private:
  sigset_t before_;
};

termios2 settings_of(const PtyEnds& ends) {
  termios2 settings{};
  check(::ioctl(ends.master, TCGETS2, &settings), "read the settings of", ends.what);
  return settings;
}

void set(const PtyEnds& ends, const termios2& settings) {
  check(::ioctl(ends.master, TCSETS2, &settings), "set the settings of", ends.what);
}

void set_packet_mode(const PtyEnds& ends, bool on) {
  const int mode = on ? 1 : 0;
  check(::ioctl(ends.master, TIOCPKT, &mode), "set the packet mode of", ends.what);
}

bool gives_lines(const termios2& settings) { return (settings.c_lflag & (ICANON | EXTPROC)) == ICANON; }

// Nothing that passes is looked at, but for what ends a line.
termios2 quiet(const termios2& settings) {
  auto result = settings;
  result.c_iflag = 0;
  result.c_oflag = 0;
  result.c_lflag = settings.c_lflag & (ICANON | EXTPROC);
  std::memset(result.c_cc, 0, sizeof result.c_cc);
  result.c_cc[VMIN] = 1;
  return result;
}

// Settings may be locked; for as long as this needs to change them they are not.
class Unlocked {
 public:
  explicit Unlocked(const PtyEnds& ends) : ends_(ends) {
    termios none{};
    check(::ioctl(ends.master, TIOCGLCKTRMIOS, &locked_), "read the locked settings of", ends.what);
    was_locked_ = std::memcmp(&locked_, &none, sizeof none) != 0;
    if (was_locked_) {
      check(::ioctl(ends.master, TIOCSLCKTRMIOS, &none), "unlock the settings of", ends.what);
    }
  }
  ~Unlocked() {
    if (was_locked_) {
      ::ioctl(ends_.master, TIOCSLCKTRMIOS, &locked_);
    }
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  const PtyEnds& ends_;
  termios locked_{};
  bool was_locked_ = false;
};

// ---- taking out -----------------------------------------------------------------------------------------------------

// What one read gives; false: nothing is there.
bool read_once(int fd, std::string& bytes, const std::string& what) {
  char room[line_buffer + 1];
  const auto got = ::read(fd, room, sizeof room);
  if (got < 0 && errno == EAGAIN) {
    return false;
  }
  check(got, "read what waits in", what);
  bytes.assign(room, static_cast<std::size_t>(got));
  return true;
}

TtyInput take_input(const PtyEnds& ends, const termios2& settings) {
  TtyInput input;
  std::string bytes;
  auto silent = quiet(settings);
  set(ends, silent);
  if (gives_lines(settings)) {
    // A read gives one line; an empty one is an end of file that was typed.
    while (read_once(ends.slave, bytes, ends.what)) {
      input.bytes += bytes;
      input.lines.push_back(static_cast<std::uint32_t>(bytes.size()));
    }
    silent.c_lflag = 0;
    set(ends, silent);
  }
  while (read_once(ends.slave, bytes, ends.what) && !bytes.empty()) {
    input.bytes += bytes;
  }
  return input;
}

bool is_there(int fd, short events) {
  pollfd poll{fd, events, 0};
  return ::poll(&poll, 1, 0) > 0 && (poll.revents & events) != 0;
}

// The master's descriptor is the one of the program, and may be one that waits.
void take_output(const PtyEnds& ends, bool packet_mode, PtyContents& contents) {
  while (is_there(ends.master, POLLIN)) {
    char room[line_buffer + 2];
    const auto got = ::read(ends.master, room, sizeof room);
    if (got < 0 && errno == EIO) {
      return;  // all is read, and the slave is closed
    }
    check(got, "read what waits in", ends.what);
    if (!packet_mode) {
      contents.output.append(room, static_cast<std::size_t>(got));
    } else if (got > 0 && room[0] != TIOCPKT_DATA) {
      contents.packet_status |= static_cast<unsigned char>(room[0]);
    } else if (got > 0) {
      contents.output.append(room + 1, static_cast<std::size_t>(got) - 1);
    }
  }
}

// Output that nobody can write, though there is room: whether a program asked for that or who types.
std::uint32_t find_stopped(const PtyEnds& ends) {
  constexpr std::uint32_t by_character = 1, by_program = 2;
  if (is_there(ends.slave, POLLOUT)) {
    return 0;
  }
  ::ioctl(ends.slave, TCXONC, TCOON);
  if (!is_there(ends.slave, POLLOUT)) {
    return by_character;
  }
  ::ioctl(ends.slave, TCXONC, TCOOFF);
  return by_program;
}

// ---- putting in -----------------------------------------------------------------------------------------------------

// As if the terminal had got it, through its line discipline, and done when this returns.
void type(int fd, char c, const std::string& what) {
  check(::ioctl(fd, TIOCSTI, &c), "put back what waits in", what, "needs CAP_SYS_ADMIN");
}

// The program's own description is not to wait for room.
class Impatient {
 public:
  explicit Impatient(int fd) : fd_(fd), flags_(::fcntl(fd, F_GETFL)) { ::fcntl(fd, F_SETFL, flags_ | O_NONBLOCK); }
  ~Impatient() { ::fcntl(fd_, F_SETFL, flags_); }
  Impatient(const Impatient&) = delete;
  Impatient& operator=(const Impatient&) = delete;

 private:
  int fd_, flags_;
};

void write_rest(int fd, std::string_view bytes, const std::string& what) {
  if (bytes.empty()) {
    return;
  }
  const Impatient meanwhile(fd);
  // The kernel takes pieces until its limit is passed, and counts buffers, not bytes: with small pieces, which fill
  // them, and a big one last there is room for as much as there has ever been.
  constexpr std::size_t piece = 256, last_piece = 1536;
  while (!bytes.empty()) {
    const auto size = bytes.size() > last_piece ? std::min(piece, bytes.size() - last_piece) : bytes.size();
    const auto written = check(::write(fd, bytes.data(), size), "write back what waits in", what);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

class Typist {
 public:
  Typist(const PtyEnds& ends, const termios2& settings)
      : ends_(ends), settings_(settings), lines_(gives_lines(settings)) {
    auto typing = quiet(settings);
    if (lines_) {
      typing.c_lflag |= IEXTEN;
      typing.c_cc[VLNEXT] = literally;
      typing.c_cc[VEOF] = end_of_file;
      typing.c_cc[VEOL] = settings.c_cc[VEOL];
      typing.c_cc[VEOL2] = settings.c_cc[VEOL2];
    }
    set(ends, typing);
  }

  // As many as fit; returns how many bytes they were.
  std::size_t type(const TtyInput& input) {
    std::size_t at = 0;
    for (std::size_t line = 0; line < input.lines.size() && used_ < line_buffer; ++line) {
      const auto end = std::min<std::size_t>(at + input.lines[line], input.bytes.size());
      const bool ends_itself = end > at && ends_line(input.bytes[end - 1]);
      while (at < end - (ends_itself ? 1 : 0)) {
        put(input.bytes[at++], true);
      }
      put(ends_itself ? input.bytes[at++] : end_of_file, false);
    }
    while (at < input.bytes.size() && used_ < line_buffer) {
      put(input.bytes[at++], true);
    }
    return at;
  }

 private:
  static constexpr char literally = 0x16, end_of_file = 0x04;

  bool ends_line(char c) const {
    const auto is = [c](cc_t end) { return end != 0 && static_cast<cc_t>(c) == end; };
    return c == '\n' || is(settings_.c_cc[VEOL]) || is(settings_.c_cc[VEOL2]);
  }
  void put(char c, bool plain) {
    if (plain && lines_ && (c == literally || c == end_of_file || ends_line(c))) {
      files::type(ends_.slave, literally, ends_.what);
    }
    files::type(ends_.slave, c, ends_.what);
    ++used_;
  }

  const PtyEnds& ends_;
  const termios2& settings_;
  bool lines_;
  std::size_t used_ = 0;
};

void put_input(const PtyEnds& ends, const TtyInput& input, const termios2& settings) {
  std::size_t typed = 0;
  if (!input.bytes.empty() || !input.lines.empty()) {
    typed = Typist(ends, settings).type(input);
  }
  set(ends, settings);
  write_rest(ends.master, std::string_view(input.bytes).substr(typed), ends.what);
}

constexpr char stop_character = 0x13, start_character = 0x11;

void type_flow(const PtyEnds& ends, char c, const termios2& settings) {
  auto typing = quiet(settings);
  typing.c_iflag = IXON;
  typing.c_cc[VSTOP] = stop_character;
  typing.c_cc[VSTART] = start_character;
  set(ends, typing);
  type(ends.slave, c, ends.what);
  set(ends, settings);
}

void put_output(const PtyEnds& ends, const std::string& output, const termios2& settings) {
  const auto typed = std::min(output.size(), line_buffer);
  for (std::size_t i = 0; i < typed; ++i) {
    type(ends.master, output[i], ends.what);
  }
  if (typed < output.size()) {
    ::ioctl(ends.slave, TCXONC, TCOON);  // it may be stopped; that comes back below
    type_flow(ends, start_character, settings);
    set(ends, quiet(settings));
    write_rest(ends.slave, std::string_view(output).substr(typed), ends.what);
    set(ends, settings);
  }
}

// The notes for a master in packet mode come about by what they tell of.
void note(const PtyEnds& ends, std::uint32_t status, const termios2& settings) {
  if ((status & (TIOCPKT_STOP | TIOCPKT_START)) != 0) {
    ::ioctl(ends.slave, TCXONC, TCOOFF);
    ::ioctl(ends.slave, TCXONC, TCOON);
    if ((status & TIOCPKT_STOP) != 0) {
      ::ioctl(ends.slave, TCXONC, TCOOFF);
    }
  }
  if ((status & (TIOCPKT_NOSTOP | TIOCPKT_DOSTOP)) != 0) {
    auto other = settings;
    other.c_iflag ^= IXON;
    other.c_cc[VSTOP] = stop_character;
    other.c_cc[VSTART] = start_character;
    set(ends, other);
    set(ends, settings);
  }
  if ((status & TIOCPKT_FLUSHREAD) != 0) {
    check(::ioctl(ends.slave, TCFLSH, TCIFLUSH), "flush", ends.what);
  }
  if ((status & TIOCPKT_FLUSHWRITE) != 0) {
    check(::ioctl(ends.slave, TCFLSH, TCOFLUSH), "flush", ends.what);
  }
}

void stop(const PtyEnds& ends, std::uint32_t stopped, const termios2& settings) {
  if (stopped == 2) {
    check(::ioctl(ends.slave, TCXONC, TCOOFF), "stop the output of", ends.what);
  } else if (stopped == 1) {
    type_flow(ends, stop_character, settings);
  }
}

bool may_type() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2]{};
  check(::syscall(SYS_capget, &header, data), "read own capabilities");
  return (data[0].effective & 1U << CAP_SYS_ADMIN) != 0;
}

// What cannot be put back is not taken out.
void refuse_if_something_waits(const PtyEnds& ends) {
  if (is_there(ends.master, POLLIN) || (ends.slave >= 0 && is_there(ends.slave, POLLIN))) {
    throw Error("cannot dump", ends.what, 0,
                "what waits unread in a terminal can only be looked at with CAP_SYS_ADMIN");
  }
}

}  // namespace

PtyContents look_into(const PtyEnds& ends, bool packet_mode) {
  if (!may_type()) {
    refuse_if_something_waits(ends);
    return {};
  }
  int waiting = 0;
  if (ends.slave < 0 && ::ioctl(ends.master, FIONREAD, &waiting) == 0 &&
      static_cast<std::size_t>(waiting) >= line_buffer) {
    throw Error("cannot dump", ends.what + ": more waits unread in it than can be put back without its slave", 0);
  }
  PtyContents contents;
  const Undisturbed until_it_is_back;
  const Unlocked meanwhile(ends);
  take_output(ends, packet_mode, contents);
  if (ends.slave >= 0) {
    contents.stopped = find_stopped(ends);
    const auto settings = settings_of(ends);
    if (packet_mode) {
      set_packet_mode(ends, false);
    }
    contents.input = take_input(ends, settings);
    set(ends, settings);
  }
  fill(ends, contents, packet_mode);
  return contents;
}

void fill(const PtyEnds& ends, const PtyContents& contents, bool packet_mode) {
  const auto settings = settings_of(ends);
  if (ends.slave >= 0) {
    put_input(ends, contents.input, settings);
  }
  if (packet_mode) {
    set_packet_mode(ends, true);
    if (ends.slave >= 0) {
      // The input is there already, and would be flushed.
      const bool spare = !contents.input.bytes.empty() || !contents.input.lines.empty();
      note(ends, contents.packet_status & ~(spare ? std::uint32_t{TIOCPKT_FLUSHREAD} : 0), settings);
    }
  }
  put_output(ends, contents.output, settings);
  if (ends.slave >= 0) {
    stop(ends, contents.stopped, settings);
  }
}

std::vector<std::uint32_t> lines_of(const std::string& bytes, const images::termios_entry& termios) {
  std::vector<std::uint32_t> lines;
  if ((termios.c_lflag() & (ICANON | EXTPROC)) != ICANON) {
    return lines;
  }
  std::size_t from = 0;
  for (auto at = bytes.find('\n'); at != std::string::npos; at = bytes.find('\n', from)) {
    lines.push_back(static_cast<std::uint32_t>(at + 1 - from));
    from = at + 1;
  }
  return lines;
}

}  // namespace criu::files
