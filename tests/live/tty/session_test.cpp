// SPDX-License-Identifier: GPL-2.0-only
// Terminals and the sessions that they control.
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <sstream>
#include <string>

#include "../harness/live.hpp"

using live::checkpoint_here;
using live::Child;

namespace {

struct Pair {
  int master, slave;
};

Pair open_pair() {
  Pair pair{};
  REQUIRE(::openpty(&pair.master, &pair.slave, nullptr, nullptr, nullptr) == 0);
  return pair;
}

// Fields of /proc/PID/stat: the controlling terminal, and its foreground group.
struct Control {
  int terminal, foreground;
};
Control control_of(pid_t pid) {
  const auto text = live::read_text("/proc/" + std::to_string(pid) + "/stat");
  std::istringstream words(text.substr(text.rfind(')') + 2));
  std::string state;
  int ppid = 0, pgrp = 0, session = 0;
  Control control{};
  words >> state >> ppid >> pgrp >> session >> control.terminal >> control.foreground;
  return control;
}

pid_t session_of(int master) {
  pid_t session = 0;
  return ::ioctl(master, TIOCGSID, &session) == 0 ? session : -errno;
}

pid_t foreground_of(int master) {
  pid_t group = 0;
  return ::ioctl(master, TIOCGPGRP, &group) == 0 ? group : -errno;
}

void become_leader(int slave) {
  REQUIRE(::setsid() >= 0);
  REQUIRE(::ioctl(slave, TIOCSCTTY, 0) == 0);
}

volatile sig_atomic_t interrupted = 0;
void on_interrupt(int) { interrupted = 1; }

}  // namespace

LIVE_TEST("tty: a session with its terminal, and its foreground group gets the signals") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  Child leader([slave] {
    become_leader(slave);
    ::signal(SIGTTOU, SIG_IGN);
    Child job([] {
      ::setpgid(0, 0);
      ::signal(SIGINT, on_interrupt);
      checkpoint_here();
      live::await([] { return interrupted == 1; }, "the terminal hands the signal on");  // from a thread of the kernel
      CHECK(::tcgetpgrp(0) < 0);  // no standard stream is the terminal
      const int terminal = ::open("/dev/tty", O_RDWR);
      CHECK(terminal >= 0);
      CHECK_EQ(::tcgetpgrp(terminal), ::getpid());
    });
    REQUIRE(::tcsetpgrp(slave, job.pid()) == 0);
    checkpoint_here();
    CHECK_EQ(::tcgetpgrp(slave), job.pid());
    CHECK_EQ(::tcgetsid(slave), ::getpid());
    CHECK_EQ(job.finish(), 0);
    CHECK_EQ(::tcsetpgrp(slave, ::getpgrp()), 0);
  });
  CHECK(control_of(leader.pid()).terminal != 0);
  const auto before = control_of(leader.pid());
  checkpoint_here();
  const auto after = control_of(leader.pid());
  CHECK_EQ(after.terminal, before.terminal);
  CHECK_EQ(after.foreground, before.foreground);
  CHECK_EQ(session_of(master), leader.pid());
  CHECK_EQ(control_of(::getpid()).terminal, 0);
  CHECK_EQ(::write(master, "\x03", 1), 1);
  CHECK_EQ(leader.finish(), 0);
}

LIVE_TEST("tty: a controlling terminal that nobody of its session has open") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  Child leader([master, slave] {
    become_leader(slave);
    ::close(master);
    ::close(slave);
    checkpoint_here();
    const int terminal = ::open("/dev/tty", O_RDWR);
    REQUIRE(terminal >= 0);
    CHECK_EQ(::write(terminal, "here\n", 5), 5);
  });
  ::close(slave);
  checkpoint_here();
  CHECK_EQ(session_of(master), leader.pid());
  CHECK_EQ(leader.finish(), 0);
  char room[20] = {};
  CHECK_EQ(::read(master, room, sizeof room), 6);
  CHECK_EQ(std::string(room), "here\r\n");
}

LIVE_TEST("tty: two sessions, each with its terminal, one inside the other") {
  const auto outer = open_pair(), inner = open_pair();
  Child first([&] {
    become_leader(outer.slave);
    Child second([&] {
      become_leader(inner.slave);
      checkpoint_here();
      CHECK_EQ(::tcgetsid(inner.slave), ::getpid());
    });
    checkpoint_here();
    CHECK_EQ(session_of(inner.master), second.pid());
    CHECK_EQ(::tcgetsid(outer.slave), ::getpid());
    CHECK_EQ(second.finish(), 0);
  });
  checkpoint_here();
  CHECK_EQ(session_of(outer.master), first.pid());
  CHECK_EQ(first.finish(), 0);
}

LIVE_TEST("tty: the victim itself leads the session") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  REQUIRE(::ioctl(slave, TIOCSCTTY, 0) == 0);
  Child member([] {
    checkpoint_here();
    CHECK(control_of(::getpid()).terminal != 0);
  });
  checkpoint_here();
  CHECK_EQ(session_of(master), ::getpid());
  CHECK_EQ(member.finish(), 0);
}

LIVE_TEST("tty: members of a session that have given up its terminal, or never had it") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  Child leader([&] {
    REQUIRE(::setsid() >= 0);
    Child before([] {
      checkpoint_here();
      CHECK_EQ(control_of(::getpid()).terminal, 0);
    });
    REQUIRE(::ioctl(slave, TIOCSCTTY, 0) == 0);
    Child after([&] {
      Child its_child([] {
        checkpoint_here();
        CHECK(control_of(::getpid()).terminal != 0);
      });
      REQUIRE(::ioctl(slave, TIOCNOTTY) == 0);
      checkpoint_here();
      CHECK_EQ(control_of(::getpid()).terminal, 0);
      CHECK(::open("/dev/tty", O_RDWR) < 0 && errno == ENXIO);
      CHECK_EQ(its_child.finish(), 0);
    });
    checkpoint_here();
    CHECK(control_of(::getpid()).terminal != 0);
    CHECK_EQ(before.finish(), 0);
    CHECK_EQ(after.finish(), 0);
  });
  checkpoint_here();
  CHECK_EQ(session_of(master), leader.pid());
  CHECK_EQ(leader.finish(), 0);
}

LIVE_TEST("tty: a foreground group that is gone") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  pid_t gone = 0;
  int news[2];
  REQUIRE(::pipe(news) == 0);
  Child leader([&] {
    become_leader(slave);
    ::signal(SIGTTOU, SIG_IGN);
    const pid_t job = ::fork();
    if (job == 0) {
      ::setpgid(0, 0);
      ::tcsetpgrp(slave, ::getpid());
      ::_exit(0);
    }
    ::waitpid(job, nullptr, 0);
    REQUIRE(::write(news[1], &job, sizeof job) == sizeof job);
    checkpoint_here();
    CHECK_EQ(::tcgetpgrp(slave), job);
  });
  REQUIRE(::read(news[0], &gone, sizeof gone) == sizeof gone);
  checkpoint_here();
  CHECK_EQ(foreground_of(master), gone);
  CHECK_EQ(leader.finish(), 0);
}

LIVE_TEST("tty: a session whose leader has ended lost its terminal, and still has it open") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  int news[2];
  REQUIRE(::pipe(news) == 0);
  // Whoever is left of the session is ours then.
  const pid_t leader = ::fork();
  if (leader == 0) {
    become_leader(slave);
    ::signal(SIGHUP, SIG_IGN);
    const pid_t member = ::fork();
    if (member == 0) {
      const pid_t self = ::getpid();
      [[maybe_unused]] const auto told = ::write(news[1], &self, sizeof self);
      ::pause();
      ::_exit(0);
    }
    ::_exit(0);
  }
  pid_t member = 0;
  REQUIRE(::read(news[0], &member, sizeof member) == sizeof member);
  ::waitpid(leader, nullptr, 0);
  live::await([&] { return control_of(member).terminal == 0; }, "the session has lost its terminal");
  // It is no child of ours, and ends up with the harness: so only what is left to us is looked at.
  ::kill(member, SIGKILL);
  checkpoint_here();
  CHECK_EQ(session_of(master), -ENOTTY);
  CHECK_EQ(foreground_of(master), 0);
  CHECK_EQ(::ioctl(slave, TIOCSCTTY, 0), 0);
  CHECK_EQ(session_of(master), ::getpid());
}

LIVE_TEST("tty: /dev/tty, open in the session and outside of it") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  Child leader([&] {
    become_leader(slave);
    const int terminal = ::open("/dev/tty", O_RDWR | O_NONBLOCK);
    REQUIRE(terminal >= 0);
    Child daemon([&] {
      REQUIRE(::setsid() >= 0);
      checkpoint_here();
      CHECK(::open("/dev/tty", O_RDWR) < 0 && errno == ENXIO);
      CHECK_EQ(::write(terminal, "daemon ", 7), 7);
    });
    const int output = ::open("/dev/tty", O_WRONLY);
    checkpoint_here();
    CHECK_EQ(daemon.finish(), 0);
    CHECK_EQ(::write(output, "leader", 6), 6);
    char c = 0;
    CHECK(::read(terminal, &c, 1) < 0 && errno == EAGAIN);
  });
  checkpoint_here();
  CHECK_EQ(leader.finish(), 0);
  std::string all;
  char room[64];
  while (all.size() < 13) {
    const auto got = ::read(master, room, sizeof room);
    REQUIRE(got > 0);
    all.append(room, static_cast<std::size_t>(got));
  }
  CHECK_EQ(all, "daemon leader");
}

LIVE_TEST("tty: /dev/tty of two sessions") {
  const auto one = open_pair(), two = open_pair();
  const auto body = [](int slave, const char* word) {
    return [slave, word] {
      become_leader(slave);
      const int terminal = ::open("/dev/tty", O_RDWR);
      REQUIRE(terminal >= 0);
      checkpoint_here();
      CHECK_EQ(::write(terminal, word, 3), 3);
    };
  };
  Child first(body(one.slave, "one")), second(body(two.slave, "two"));
  checkpoint_here();
  CHECK_EQ(first.finish(), 0);
  CHECK_EQ(second.finish(), 0);
  char room[4] = {};
  CHECK(::read(one.master, room, 3) == 3 && std::string(room) == "one");
  CHECK(::read(two.master, room, 3) == 3 && std::string(room) == "two");
}

LIVE_TEST("tty: a stopped job of a terminal is continued") {
  const auto pair = open_pair();
  const int master = pair.master, slave = pair.slave;
  Child leader([&] {
    become_leader(slave);
    ::signal(SIGTTOU, SIG_IGN);
    const pid_t job = ::fork();
    if (job == 0) {
      ::signal(SIGTTOU, SIG_DFL);
      ::setpgid(0, 0);
      char c = 0;
      const auto got = ::read(slave, &c, 1);  // stops: it is not in the foreground
      ::_exit(got == 1 && c == 'x' ? 0 : 1);
    }
    int status = 0;
    REQUIRE(::waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTTIN);
    checkpoint_here();
    CHECK_EQ(live::state_of(job), 'T');
    CHECK_EQ(::tcsetpgrp(slave, job), 0);
    CHECK_EQ(::kill(-job, SIGCONT), 0);
    CHECK(::waitpid(job, &status, 0) == job && status == 0);
  });
  checkpoint_here();
  CHECK_EQ(::write(master, "x\n", 2), 2);
  CHECK_EQ(leader.finish(), 0);
}

// ---- what cannot be -------------------------------------------------------------------------------------------------

namespace {

int held_master = -1;

// Holds the master of a pty, whose slave's path it tells.
void hold_a_master() {
  held_master = ::posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(held_master >= 0 && ::unlockpt(held_master) == 0);
  REQUIRE(::symlink(::ptsname(held_master), live::scratch("terminal").c_str()) == 0);
  live::outside_ready();
  ::pause();
}

}  // namespace

LIVE_TEST("tty: a terminal from outside is refused, and its options are named",
          {.not_contained = true,
           .dump_fails = "--shell-job puts the terminal of the restore in its place, --external tty[",
           .outside = hold_a_master}) {
  const int slave = ::open(live::scratch("terminal").c_str(), O_RDWR | O_NOCTTY);
  REQUIRE(slave >= 0);
  checkpoint_here();
  CHECK_EQ(::isatty(slave), 1);
}

LIVE_TEST("tty: a controlling terminal from outside that nobody has open is refused",
          {.not_contained = true, .dump_fails = "which is outside of the tree", .outside = hold_a_master}) {
  const int slave = ::open(live::scratch("terminal").c_str(), O_RDWR | O_NOCTTY);
  REQUIRE(slave >= 0 && ::ioctl(slave, TIOCSCTTY, 0) == 0);
  ::close(slave);
  checkpoint_here();
  CHECK(control_of(::getpid()).terminal != 0);
}

namespace {

// Opens the slave of the tree's master.
void hold_a_slave() {
  REQUIRE(::mkfifo(live::scratch("path").c_str(), 0600) == 0);
  live::outside_ready();
  const int fifo = ::open(live::scratch("path").c_str(), O_RDWR);
  char path[100] = {};
  REQUIRE(::read(fifo, path, sizeof path) > 0);
  const int slave = ::open(path, O_RDWR | O_NOCTTY);
  REQUIRE(slave >= 0 && ::write(slave, "x", 1) == 1);
  ::pause();
}

}  // namespace

LIVE_TEST("tty: a master whose slave is open outside of the tree only is refused",
          {.not_contained = true, .dump_fails = "is open outside of the tree", .outside = hold_a_slave}) {
  const int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(::unlockpt(master) == 0);
  const std::string path = ::ptsname(master);
  const int fifo = ::open(live::scratch("path").c_str(), O_WRONLY);
  REQUIRE(::write(fifo, path.data(), path.size()) > 0);
  ::close(fifo);
  char c = 0;
  CHECK_EQ(::read(master, &c, 1), 1);
  checkpoint_here();
}

LIVE_TEST("tty: the number is taken", {.not_contained = true,
                                       .restore_fails = "is taken by process",
                                       .tamper =
                                           [](const std::string&) {
                                             // Kept until the end of this process.
                                             for (int i = 0; i < 40; ++i) {
                                               ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
                                             }
                                           },
                                       .not_dry = true}) {
  open_pair();
  checkpoint_here();
}
