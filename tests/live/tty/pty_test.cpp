// SPDX-License-Identifier: GPL-2.0-only
// Ptys whose both ends are in the tree, or one of them: what is open, how it is set, and what waits unread.
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "../harness/live.hpp"

using live::checkpoint_here;

namespace {

struct Pair {
  int master, slave;
};

Pair open_pair() {
  Pair pair{};
  REQUIRE(::openpty(&pair.master, &pair.slave, nullptr, nullptr, nullptr) == 0);
  return pair;
}

termios settings_of(int fd) {
  termios settings{};
  REQUIRE(::tcgetattr(fd, &settings) == 0);
  return settings;
}

void set(int fd, const termios& settings) { REQUIRE(::tcsetattr(fd, TCSANOW, &settings) == 0); }

void make_raw(int fd) {
  auto settings = settings_of(fd);
  ::cfmakeraw(&settings);
  set(fd, settings);
}

void put(int fd, const std::string& text) {
  REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

// One read; "(again)" when it would wait, "(closed)" when the other end is.
std::string take(int fd) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  char room[65536];
  const auto got = ::read(fd, room, sizeof room);
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  if (got < 0) {
    return errno == EAGAIN ? "(again)" : errno == EIO ? "(closed)" : "(error)";
  }
  return {room, static_cast<std::size_t>(got)};
}

// All that is there.
std::string take_all(int fd) {
  std::string all;
  for (auto text = take(fd); text != "(again)" && text != "(closed)"; text = take(fd)) {
    all += text;
  }
  return all;
}

// Bytes go from one end to the other through a worker of the kernel.
void await_input(int fd) {
  pollfd poll{fd, POLLIN, 0};
  REQUIRE(::poll(&poll, 1, 5000) == 1);
}

void await_bytes(int fd, int count) {
  live::await(
      [&] {
        int there = 0;
        pollfd poll{fd, POLLIN, 0};
        ::poll(&poll, 1, 0);
        return ::ioctl(fd, FIONREAD, &there) == 0 && there >= count;
      },
      "all bytes are there");
}

short events_of(int fd) {
  pollfd poll{fd, POLLIN | POLLOUT | POLLPRI, 0};
  ::poll(&poll, 1, 0);
  return poll.revents;
}

int number_of(int master) {
  int number = -1;
  ::ioctl(master, TIOCGPTN, &number);
  return number;
}

}  // namespace

LIVE_TEST("tty: a pair of ends, with what waits in both directions, size and settings") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  auto settings = settings_of(slave);
  settings.c_iflag |= IXANY | IUTF8;
  settings.c_lflag &= ~static_cast<tcflag_t>(ECHOE);
  settings.c_cc[VINTR] = 'q';
  ::cfsetspeed(&settings, B57600);
  set(slave, settings);
  const winsize size{33, 99, 7, 8};
  REQUIRE(::ioctl(slave, TIOCSWINSZ, &size) == 0);
  put(slave, "to the master\n");
  const auto name = std::string(::ttyname(slave));
  checkpoint_here();
  const auto after = settings_of(slave);
  CHECK(after.c_iflag == settings.c_iflag && after.c_oflag == settings.c_oflag && after.c_cflag == settings.c_cflag &&
        after.c_lflag == settings.c_lflag && after.c_cc[VINTR] == 'q' && after.c_cc[VERASE] == settings.c_cc[VERASE]);
  winsize there{};
  CHECK(::ioctl(master, TIOCGWINSZ, &there) == 0 && there.ws_row == 33 && there.ws_col == 99 && there.ws_xpixel == 7 &&
        there.ws_ypixel == 8);
  CHECK_EQ(take(master), "to the master\r\n");
  CHECK_EQ(std::string(::ttyname(slave)), name);
  CHECK_EQ(std::string(::ptsname(master)), name);
  put(master, "a line\n");
  await_input(slave);
  CHECK_EQ(take(slave), "a line\n");
  await_input(master);
  CHECK_EQ(take(master), "a line\r\n");  // its echo
}

LIVE_TEST("tty: raw input with every byte there is") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  make_raw(slave);
  std::string bytes;
  for (int i = 0; i < 512; ++i) {
    bytes += static_cast<char>(i);
  }
  put(master, bytes);
  put(slave, bytes);
  await_bytes(slave, 512);
  checkpoint_here();
  CHECK(take_all(slave) == bytes);
  CHECK(take_all(master) == bytes);
}

LIVE_TEST("tty: lines that wait, ends of file among them, and one that is being typed") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  auto settings = settings_of(slave);
  settings.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  settings.c_cc[VEOL] = ';';
  set(slave, settings);
  put(master, "first\nby another end;\x04without end\x04second\n\x16\x03 and \x16\x04 half a linX");
  await_bytes(slave, 5);
  checkpoint_here();
  CHECK_EQ(take(slave), "first\n");
  CHECK_EQ(take(slave), "by another end;");
  CHECK_EQ(take(slave), "");
  CHECK_EQ(take(slave), "without end");
  CHECK_EQ(take(slave), "second\n");
  CHECK_EQ(take(slave), "(again)");
  put(master,
      "\x7f"
      "e\n");
  await_input(slave);
  CHECK_EQ(take(slave), "\x03 and \x04 half a line\n");
}

LIVE_TEST("tty: typed on meanwhile, with echo and signals on") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  put(master, "echoed\nand mor");
  await_bytes(slave, 7);
  await_bytes(master, 15);
  checkpoint_here();
  CHECK_EQ(take(master), "echoed\r\nand mor");
  put(master, "e\n");
  await_bytes(slave, 16);
  CHECK_EQ(take(slave), "echoed\n");
  CHECK_EQ(take(slave), "and more\n");
  CHECK_EQ(take(master), "e\r\n");
}

// A second dump finds no room to put back what it took out to look at it.
LIVE_TEST("tty: buffers that are full to the brim", {.most_rounds = 1}) {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  make_raw(slave);
  ::fcntl(master, F_SETFL, O_NONBLOCK);
  ::fcntl(slave, F_SETFL, O_NONBLOCK);
  std::string in, out;
  // The kernel's worker moves some of it on meanwhile.
  for (int full = 0; full < 50; ++full) {
    for (char c = 'a';; c = c == 'z' ? 'a' : static_cast<char>(c + 1)) {
      const std::string piece(100, c);
      const auto put_in = ::write(master, piece.data(), piece.size());
      const auto put_out = ::write(slave, piece.data(), piece.size());
      in += piece.substr(0, static_cast<std::size_t>(std::max<ssize_t>(put_in, 0)));
      out += piece.substr(0, static_cast<std::size_t>(std::max<ssize_t>(put_out, 0)));
      if (put_in < 0 && put_out < 0) {
        break;
      }
    }
    events_of(slave);
  }
  CHECK(in.size() > 8000 && out.size() > 8000);
  checkpoint_here();
  CHECK(take_all(slave) == in);
  CHECK(take_all(master) == out);
}

LIVE_TEST("tty: a master alone, whose slave was never opened") {
  const int locked = ::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK), open = ::posix_openpt(O_RDWR | O_CLOEXEC);
  REQUIRE(::unlockpt(open) == 0);
  checkpoint_here();
  int lock = -1;
  CHECK(::ioctl(locked, TIOCGPTLCK, &lock) == 0 && lock == 1);
  CHECK(::ioctl(open, TIOCGPTLCK, &lock) == 0 && lock == 0);
  CHECK_EQ(take(open), "(again)");
  CHECK((events_of(open) & POLLHUP) == 0);
  const int refused = ::open(::ptsname(locked), O_RDWR | O_NOCTTY);
  CHECK(refused < 0 && errno == EIO);
  const int slave = ::open(::ptsname(open), O_RDWR | O_NOCTTY);
  CHECK(slave >= 0);
  put(slave, "first words");
  await_input(open);
  CHECK_EQ(take(open), "first words");
}

LIVE_TEST("tty: a master alone, whose slave is closed") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  make_raw(slave);
  put(slave, "last words");
  put(master, "not read");
  await_bytes(slave, 8);
  ::close(slave);
  checkpoint_here();
  CHECK_EQ(take(master), "last words");
  CHECK_EQ(take(master), "(closed)");
  CHECK((events_of(master) & POLLHUP) != 0);
  const int again = ::open(::ptsname(master), O_RDWR | O_NOCTTY);
  CHECK_EQ(take(again), "not read");
  CHECK_EQ(take(master), "(again)");
}

LIVE_TEST("tty: a slave that has been hung up, and a pty that has its number now") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  const int number = number_of(master);
  ::close(master);
  // Others may open ptys, too.
  Pair next = open_pair();
  for (int i = 0; i < 100 && number_of(next.master) != number; ++i) {
    next = open_pair();
  }
  const int second = next.master, its_slave = next.slave;
  if (number_of(second) != number) {
    live::skip("somebody else has the number");
  }
  checkpoint_here();
  CHECK_EQ(take(slave), "");
  CHECK(::write(slave, "x", 1) < 0 && errno == EIO);
  termios settings{};
  CHECK(::tcgetattr(slave, &settings) < 0 && errno == EIO);
  put(its_slave, "alive");
  await_input(second);
  CHECK_EQ(take(second), "alive");
}

LIVE_TEST("tty: many ptys, with gaps between their numbers, opened in many ways") {
  int masters[12], slaves[12];
  for (int i = 0; i < 12; ++i) {
    const auto pair = open_pair();
    const int master = pair.master, slave = pair.slave;
    masters[i] = master;
    slaves[i] = slave;
  }
  for (int i = 0; i < 12; i += 3) {
    ::close(masters[i]);
    ::close(slaves[i]);
    masters[i] = -1;
  }
  const auto path = std::string(::ttyname(slaves[1]));
  const int reader = ::open(path.c_str(), O_RDONLY | O_NOCTTY), writer = ::open(path.c_str(), O_WRONLY | O_NOCTTY),
            impatient = ::open(path.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), copy = ::dup(slaves[1]);
  checkpoint_here();
  put(writer, "from one opening");
  await_input(masters[1]);
  CHECK_EQ(take(masters[1]), "from one opening");
  put(masters[1], "to another\n");
  await_input(reader);
  CHECK_EQ(take(impatient), "to another\n");
  await_input(masters[1]);
  CHECK_EQ(take(masters[1]), "to another\r\n");
  CHECK(::write(reader, "x", 1) < 0 && errno == EBADF);
  ::fcntl(copy, F_SETFL, O_NONBLOCK);
  CHECK((::fcntl(slaves[1], F_GETFL) & O_NONBLOCK) != 0);
  for (int i = 0; i < 12; ++i) {
    if (masters[i] >= 0) {
      put(slaves[i], std::to_string(i));
      await_input(masters[i]);
      CHECK_EQ(take(masters[i]), std::to_string(i));
    }
  }
}

LIVE_TEST("tty: one end with the parent, the other with its child") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  live::Child child([master, slave] {
    ::close(master);
    put(slave, "child\n");
    checkpoint_here();
    char room[20] = {};
    CHECK_EQ(::read(slave, room, sizeof room), 5);
    CHECK_EQ(std::string(room), "back\n");
  });
  ::close(slave);
  checkpoint_here();
  CHECK_EQ(take(master), "child\r\n");
  put(master, "back\n");
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(take_all(master), "back\r\n");
  CHECK((events_of(master) & POLLHUP) != 0);  // nobody else kept it open
}

LIVE_TEST("tty: packet mode, with data and with news") {
  const auto quiet = open_pair(), busy = open_pair();
  const int on = 1;
  for (const auto& pair : {quiet, busy}) {
    make_raw(pair.slave);
    REQUIRE(::ioctl(pair.master, TIOCPKT, &on) == 0);
    put(pair.slave, "data");
  }
  REQUIRE(::tcflush(busy.slave, TCIFLUSH) == 0);
  put(busy.master, "input");
  await_bytes(busy.slave, 5);
  auto settings = settings_of(quiet.slave);
  settings.c_iflag |= IXON;
  set(quiet.slave, settings);
  checkpoint_here();
  CHECK(take(quiet.master) == std::string(1, static_cast<char>(TIOCPKT_DOSTOP)));
  CHECK(take(quiet.master) == std::string("\0data", 5));
  CHECK_EQ(take_all(busy.slave), "input");
  const auto all = take_all(busy.master);
  CHECK(all.ends_with(std::string("\0data", 5)));
  int packet_mode = 0;
  CHECK(::ioctl(busy.master, TIOCGPKT, &packet_mode) == 0 && packet_mode == 1);
  REQUIRE(::tcflush(busy.slave, TCOFLUSH) == 0);
  CHECK((events_of(busy.master) & POLLPRI) != 0);
}

LIVE_TEST("tty: exclusive ends, and a slave that is open though locked") {
  const auto first = open_pair(), second = open_pair();
  REQUIRE(::ioctl(first.slave, TIOCEXCL) == 0);
  REQUIRE(::ioctl(second.master, TIOCEXCL) == 0);
  const int on = 1;
  REQUIRE(::ioctl(second.master, TIOCSPTLCK, &on) == 0);
  checkpoint_here();
  int exclusive = 0;
  CHECK(::ioctl(first.slave, TIOCGEXCL, &exclusive) == 0 && exclusive != 0);
  CHECK(::ioctl(first.master, TIOCGEXCL, &exclusive) == 0 && exclusive == 0);
  CHECK(::ioctl(second.master, TIOCGEXCL, &exclusive) == 0 && exclusive != 0);
  put(second.slave, "still open");
  await_input(second.master);
  CHECK_EQ(take(second.master), "still open");
  // Spoils the slave for those who have it: the kernel takes it for unusable then.
  CHECK(::open(::ptsname(second.master), O_RDWR | O_NOCTTY) < 0 && errno == EIO);
}

LIVE_TEST("tty: output that is held up, by who types and by a program") {
  const auto typed = open_pair(), asked = open_pair();
  put(typed.slave, "before");
  put(typed.master, "\x13");
  live::await([&] { return (events_of(typed.slave) & POLLOUT) == 0; }, "the output stops");
  REQUIRE(::tcflow(asked.slave, TCOOFF) == 0);
  checkpoint_here();
  CHECK((events_of(typed.slave) & POLLOUT) == 0);
  CHECK((events_of(asked.slave) & POLLOUT) == 0);
  put(asked.master, "\x11");  // helps only the one
  put(typed.master, "\x11");
  live::await([&] { return (events_of(typed.slave) & POLLOUT) != 0; }, "the output goes on");
  CHECK((events_of(asked.slave) & POLLOUT) == 0);
  REQUIRE(::tcflow(asked.slave, TCOON) == 0);
  CHECK((events_of(asked.slave) & POLLOUT) != 0);
  CHECK_EQ(take_all(typed.master), "before");
}

LIVE_TEST("tty: settings that are locked", {.needs_true_root = "lock the settings of a terminal"}) {
  const int slave = open_pair().slave;
  termios lock{};
  lock.c_lflag = ECHO;
  constexpr unsigned long set_lock = 0x5457, get_lock = 0x5456;
  REQUIRE(::ioctl(slave, set_lock, &lock) == 0);
  checkpoint_here();
  termios there{};
  CHECK(::ioctl(slave, get_lock, &there) == 0 && there.c_lflag == ECHO);
  auto settings = settings_of(slave);
  settings.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  ::tcsetattr(slave, TCSANOW, &settings);
  CHECK((settings_of(slave).c_lflag & ECHO) != 0);
}

LIVE_TEST("tty: owner and mode of the slave's node, whether it is open or not") {
  const auto pair = open_pair();
  const int alone = ::posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(::unlockpt(alone) == 0);
  const auto open = std::string(::ptsname(pair.master)), closed = std::string(::ptsname(alone));
  REQUIRE(::chown(open.c_str(), 1000, 5) == 0 && ::chmod(open.c_str(), 0620) == 0);
  REQUIRE(::chown(closed.c_str(), 1001, 6) == 0 && ::chmod(closed.c_str(), 0666) == 0);
  checkpoint_here();
  struct stat node {};
  CHECK(::stat(open.c_str(), &node) == 0 && node.st_uid == 1000 && node.st_gid == 5 && (node.st_mode & 07777) == 0620);
  CHECK(::stat(closed.c_str(), &node) == 0 && node.st_uid == 1001 && node.st_gid == 6 &&
        (node.st_mode & 07777) == 0666);
}

LIVE_TEST("tty: signals of a terminal that is ready") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  sigset_t wanted;
  ::sigemptyset(&wanted);
  ::sigaddset(&wanted, SIGUSR2);
  ::sigprocmask(SIG_BLOCK, &wanted, nullptr);
  REQUIRE(::fcntl(master, F_SETSIG, SIGUSR2) == 0 && ::fcntl(master, F_SETOWN, ::getpid()) == 0 &&
          ::fcntl(master, F_SETFL, O_ASYNC) == 0);
  checkpoint_here();
  put(slave, "x");
  siginfo_t info{};
  const timespec limit{5, 0};
  CHECK_EQ(::sigtimedwait(&wanted, &info, &limit), SIGUSR2);
  CHECK_EQ(info.si_fd, master);
}

LIVE_TEST("tty: virtual consoles") {
  const int console = ::open("/dev/tty5", O_RDWR | O_NOCTTY | O_NONBLOCK);
  if (console < 0) {
    live::skip("no virtual consoles here");
  }
  const int other = ::open("/dev/tty6", O_RDONLY | O_NOCTTY);
  auto settings = settings_of(console);
  const auto usual = settings;
  settings.c_cc[VINTR] = 'z';
  set(console, settings);
  checkpoint_here();
  CHECK_EQ(settings_of(console).c_cc[VINTR], 'z');
  CHECK(settings_of(other).c_cc[VINTR] != 'z');
  set(console, usual);
}
