// SPDX-License-Identifier: GPL-2.0-only
// What a live test is written with.
//
//   LIVE_TEST("a pipe keeps its data") {
//     int ends[2];
//     REQUIRE(::pipe(ends) == 0);
//     REQUIRE(::write(ends[1], "data", 4) == 4);
//     checkpoint_here();
//     char data[4];
//     CHECK_EQ(::read(ends[0], data, 4), 4);
//   }
//
// The body runs in a process of its own: a session leader with its standard streams on /dev/null and no other
// descriptor open. At checkpoint_here() the harness dumps and restores it, once or several times, compares what /proc
// shows of the whole tree before and after, and lets it go on. SIGUSR1 belongs to the harness; everything else may be
// used. A test also runs "dry", without a checkpoint, which proves that the test itself is right.
#pragma once

#include <sys/types.h>

#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace live {

// The users of a user namespace: lines of /proc/PID/uid_map and gid_map. Its root is user `users_begin` outside.
struct Users {
  const char* uid_map = nullptr;
  const char* gid_map = nullptr;
  bool deny_setgroups = false;  // two groups are all that anybody in it has
  bool any = false;             // the usual ones
  bool wanted() const { return uid_map != nullptr || deny_setgroups || any; }
};

struct Options {
  std::vector<std::string> dump{};     // further arguments of the dump
  std::vector<std::string> restore{};  // and of the restore
  // The tree is left running by the dump and not restored: what the test checks is the tree that was dumped.
  bool leave_running = false;
  // It has to be the root of its tree, or is about what is outside and not seen from a container.
  bool not_contained = false;
  // It runs only in a user namespace, with these in it.
  Users users{};
  // What the kernel allows only to root outside of all user namespaces, in words: without it the test cannot begin.
  const char* needs_true_root = nullptr;
  // When set, the dump has to fail with this in what it says, and the victim goes on unharmed.
  std::string dump_fails{};
  // When set, the restore has to fail with this in what it says, and leave no task behind. The checks never run.
  std::string restore_fails{};
  // Called between the dump and the restore with the image directory.
  std::function<void(const std::string& images)> tamper{};
  // More checkpoints than this are known to fail.
  int most_rounds = 1'000'000;
  // What the test checks is what its options change: without a checkpoint it would fail.
  bool not_dry = false;
  // Runs in a process outside of the tree, from before the test until after it: it says outside_ready() when it is.
  std::function<void()> outside{};
  // Parts of /proc that are not compared ("maps", "fd", "status", …: the keys of a snapshot).
  std::vector<std::string> ignore{};
};

// How a program that the harness did not write is told to check itself, whereupon it writes DIR/report.
enum class Tell { signal, file };

// A real program, started with the arguments given and the scratch directory behind them. It makes DIR/ready when it
// is at work. Told to (by SIGUSR1 or by DIR/go), it checks itself and puts DIR/report in place by rename, one line a
// finding, bad ones with the word BAD; and works on.
struct Program {
  std::vector<std::string> arguments;  // "@name" is a file in tests/live/programs
  Tell tell = Tell::file;
  std::vector<std::string> more{};  // arguments behind the directory
};

struct Test {
  const char* name;
  void (*body)();  // nullptr: a program
  Options options;
  Program program{};
};

const std::vector<Test>& tests();

struct Registrar {
  Registrar(void (*body)(), const char* name, Options options = {});
  Registrar(const char* name, Program program, Options options = {});
};

// ---- for test bodies ----

// Announces that everything is set up, and returns when the harness (or, in a child, its parent) says to go on.
void checkpoint_here();

// For Options::outside: the test may begin.
void outside_ready();

// Writes a failure down; the test goes on.
void fail(const char* file, int line, const std::string& text);
// Ends this test (this process of it) after a failure.
[[noreturn]] void give_up(const char* file, int line, const std::string& text);
// This machine can't do what the test is about. Before the checkpoint only.
[[noreturn]] void skip(const std::string& why);

// Whether the tree has namespaces, a root and mounts of its own, below an init.
bool in_container();

// Whether that container has users of its own, too: root there is user 100000 outside. The kernel refuses such a root
// what changes the machine as a whole; a test that needs it even to begin says so with skip(), or `needs` has it.
bool in_user_namespace();
constexpr unsigned users_begin = 100000, user_count = 65536;

// There, of its link eth0, and of the bridge outside that the other end of this is a port of.
constexpr const char* container_address = "10.44.0.2";
constexpr const char* bridge_address = "10.44.0.1";

// A path in the test's own directory.
std::string scratch(const std::string& name);
// What is in a file (of /proc, say); empty when it can't be read.
std::string read_text(const std::string& path);
// The value behind "Name:" in /proc/PID/status; pid 0 is the caller's.
std::string status_field(const std::string& name, pid_t pid = 0);
// The state letter of a task.
char state_of(pid_t pid);
// Waits until something becomes true that nobody can signal (a task having reached a system call); gives up with
// `what` after ten seconds.
void await(const std::function<bool()>& condition, const std::string& what);
// Waits until the task sleeps in this system call.
void await_syscall(pid_t tid, long number);

// A child that the test forked. The body runs in it, and usually has a checkpoint_here() of its own.
class Child {
 public:
  // Returns when the child is at its checkpoint_here().
  explicit Child(const std::function<void()>& body);
  // The same without waiting: `ready` has to.
  Child(const std::function<void()>& body, const std::function<void(pid_t)>& ready);
  pid_t pid() const { return pid_; }
  // Lets it go on from its checkpoint and waits for its end; 0 when all its checks held.
  int finish();
  // Waits for its end.
  int join();

 private:
  pid_t pid_;
};

template <typename A, typename B>
void check_equal(const char* file, int line, const char* text, const A& a, const B& b) {
  if (!(a == static_cast<A>(b))) {
    std::ostringstream out;
    out << text << ": " << a << " and " << b;
    fail(file, line, out.str());
  }
}

}  // namespace live

#define LIVE_PASTE2(a, b) a##b
#define LIVE_PASTE(a, b) LIVE_PASTE2(a, b)
#define LIVE_TEST(...) LIVE_TEST_NUMBERED(__COUNTER__, __VA_ARGS__)
#define LIVE_TEST_NUMBERED(number, ...)                                                                       \
  static void LIVE_PASTE(live_body_, number)();                                                               \
  static const ::live::Registrar LIVE_PASTE(live_test_, number){LIVE_PASTE(live_body_, number), __VA_ARGS__}; \
  static void LIVE_PASTE(live_body_, number)()
#define LIVE_PROGRAM(...) \
  static const ::live::Registrar LIVE_PASTE(live_program_, __COUNTER__) { __VA_ARGS__ }

#define CHECK(condition)                            \
  do {                                              \
    if (!(condition)) {                             \
      ::live::fail(__FILE__, __LINE__, #condition); \
    }                                               \
  } while (false)
#define CHECK_EQ(a, b) ::live::check_equal(__FILE__, __LINE__, #a " == " #b, a, b)
#define REQUIRE(condition)                                                                        \
  do {                                                                                            \
    if (!(condition)) {                                                                           \
      ::live::give_up(__FILE__, __LINE__, std::string(#condition) + ": " + ::live::last_error()); \
    }                                                                                             \
  } while (false)

namespace live {
// errno in words, at the moment of the call.
std::string last_error();
}  // namespace live
