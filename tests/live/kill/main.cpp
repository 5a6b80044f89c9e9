// SPDX-License-Identifier: GPL-2.0-only
// Kills criu-cli at points spread over a dump, and over a restore. Whenever it happens, a dumped tree goes on unharmed,
// and a restored one is there as a whole or not at all.
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "../harness/process.hpp"
#include "../harness/snapshot.hpp"
#include "base/error.hpp"
#include "victim.hpp"

namespace {

namespace fs = std::filesystem;
using live::Clock;
using std::chrono::microseconds;
using std::chrono::seconds;

constexpr seconds limit{20};

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

struct Failure {
  std::string text;
};

// Whether something comes true that nobody can signal: a task of which no parent is told, gone or at work.
bool eventually(const std::function<bool()>& condition) {
  const auto until = Clock::now() + limit;
  while (!condition()) {
    if (Clock::now() > until) {
      return false;
    }
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    ::sched_yield();
  }
  return true;
}

std::string status_field(const fs::path& task, const std::string& name) {
  std::istringstream lines(text_of(task / "status"));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + ":")) {
      return line.substr(line.find_first_not_of("\t ", name.size() + 1));
    }
  }
  return {};
}

bool exists(pid_t pid) {
  return ::kill(pid, 0) == 0 && status_field("/proc/" + std::to_string(pid), "State")[0] != 'Z';
}

class Worker {
 public:
  explicit Worker(const std::string& directory) : directory_(directory), arrival_(directory) {
    root_ = live::start({"/proc/self/exe", "--victim", directory});
    if (!arrival_.wait("report", root_, Clock::now() + limit)) {
      throw Failure{"the victim did not get ready"};
    }
    pids_ = live::tree_of(root_);
  }

  pid_t root() const { return root_; }

  std::size_t alive() const { return static_cast<std::size_t>(std::count_if(pids_.begin(), pids_.end(), exists)); }
  bool complete() const { return alive() == pids_.size(); }

  void must_go_on(const std::string& when) {
    for (const pid_t pid : pids_) {
      must_be_free(pid, when);
    }
    fs::remove(directory_ + "/report");
    ::kill(root_, SIGUSR1);
    if (!arrival_.wait("report", root_, Clock::now() + limit)) {
      throw Failure{when + ": the victim does not answer; " + describe()};
    }
    if (const auto said = text_of(directory_ + "/report"); said != "ok") {
      throw Failure{when + ": the victim says: " + said};
    }
  }

  void end() {
    for (const pid_t pid : pids_) {
      ::kill(pid, SIGKILL);
    }
    if (!eventually([this] { return alive() == 0; })) {
      throw Failure{"the victim does not end"};
    }
    live::reap_all(limit);
  }

  // The mappings of all its tasks.
  std::set<std::string> maps() const {
    std::set<std::string> all;
    for (const pid_t pid : pids_) {
      std::istringstream lines(text_of("/proc/" + std::to_string(pid) + "/maps"));
      for (std::string line; std::getline(lines, line);) {
        static const std::regex inode(" [0-9]+ *( /.*)?$");  // a restored mapping of shared memory has another one
        all.insert(std::to_string(pid) + " " + std::regex_replace(line, inode, "$1"));
      }
    }
    return all;
  }

  std::string describe() const {
    std::string text;
    for (const pid_t pid : pids_) {
      const auto task = "/proc/" + std::to_string(pid);
      text += " task " + std::to_string(pid) + ": " + status_field(task, "State") + ", traced by " +
              status_field(task, "TracerPid") + ", in " + text_of(task + "/wchan") + ";";
    }
    return text;
  }

 private:
  void must_be_free(pid_t pid, const std::string& when) const {
    const fs::path tasks = "/proc/" + std::to_string(pid) + "/task";
    for (const auto& thread : fs::directory_iterator(tasks)) {
      const bool free = eventually([&] {
        const auto state = status_field(thread.path(), "State");
        return status_field(thread.path(), "TracerPid") == "0" && state[0] != 'T' && state[0] != 't';
      });
      if (!free) {
        throw Failure{when + ": " + thread.path().string() + " is left stopped or traced"};
      }
    }
  }

  std::string directory_;
  live::Arrival arrival_;
  pid_t root_;
  std::vector<pid_t> pids_;
};

class Killing {
 public:
  Killing(std::string criu, std::string scratch, int points)
      : criu_(std::move(criu)), scratch_(std::move(scratch)), points_(points), worker_(place("victim")) {}

  // What a complete one takes bounds the moments at which the others are killed.
  void over_dump() {
    must_succeed(dump_arguments("whole", true));
    auto whole = median([&] { must_succeed(dump_arguments("whole", true)); });
    const auto before = worker_.maps();
    int cut_short = 0;
    for (int point = 0; point < points_; ++point) {
      const auto when = "dump killed at point " + std::to_string(point);
      const auto status = run_until(dump_arguments("cut", false), point, whole);
      cut_short += WIFSIGNALED(status) ? 1 : 0;
      go_on_after_dump(status, when);
      count_leftovers(before, when);
    }
    must_have_cut(cut_short);
    std::cout << "# a dump takes " << whole.count() << " us; " << cut_short << " of " << points_ << " were cut short, "
              << leftovers_ << " left a mapping behind\n";
    must_succeed(dump_arguments("last", false));
    gone_after_dump("the last dump");
    must_succeed(restore_arguments("last"));
    worker_.must_go_on("after the last restore");
  }

  void over_restore() {
    must_succeed(dump_arguments("images", false));
    gone_after_dump("the dump");
    auto whole = median([&] {
      must_succeed(restore_arguments("images"));
      worker_.end();
    });
    const auto files = listing();
    const auto mounts = text_of("/proc/self/mountinfo");
    int cut_short = 0, there = 0;
    for (int point = 0; point < points_; ++point) {
      const auto when = "restore killed at point " + std::to_string(point);
      const auto status = run_until(restore_arguments("images"), point, whole);
      cut_short += WIFSIGNALED(status) ? 1 : 0;
      there += all_or_nothing(status, when) ? 1 : 0;
      for (const auto& file : listing()) {
        if (files.count(file) == 0) {
          throw Failure{std::string(when).append(": ").append(file).append(" is left")};
        }
      }
      if (text_of("/proc/self/mountinfo") != mounts) {
        throw Failure{when + ": mounts are left:\n" + text_of("/proc/self/mountinfo")};
      }
    }
    must_have_cut(cut_short);
    std::cout << "# a restore takes " << whole.count() << " us; " << cut_short << " of " << points_
              << " were cut short, after " << there << " the tree was there\n";
    must_succeed(restore_arguments("images"));
    worker_.must_go_on("after the last restore");
  }

  void end() { worker_.end(); }

 private:
  std::string place(const std::string& name) const {
    auto path = scratch_ + "/" + name;
    fs::create_directories(path);
    return path;
  }

  std::vector<std::string> dump_arguments(const std::string& images, bool leave_running) const {
    fs::remove_all(scratch_ + "/" + images);
    std::vector<std::string> arguments{
        criu_, "dump", "-D", place(images), "-o", "dump.log", "-v4", "-t", std::to_string(worker_.root())};
    if (leave_running) {
      arguments.emplace_back("-R");
    }
    return arguments;
  }

  std::vector<std::string> restore_arguments(const std::string& images) const {
    return {criu_, "restore", "-D", scratch_ + "/" + images, "-o", scratch_ + "/restore.log", "-v4", "-d"};
  }

  void must_succeed(const std::vector<std::string>& arguments) const {
    const auto status = live::run(arguments, scratch_ + "/output", limit);
    if (status != 0) {
      throw Failure{arguments[1] + " failed: " + text_of(scratch_ + "/output") +
                    (status ? live::describe(*status) : " (it hung)")};
    }
  }

  static microseconds median(const std::function<void()>& action) {
    std::vector<microseconds> took;
    for (int i = 0; i < 5; ++i) {
      const auto from = Clock::now();
      action();
      took.push_back(std::chrono::duration_cast<microseconds>(Clock::now() - from));
    }
    std::sort(took.begin(), took.end());
    return took[took.size() / 2];
  }

  void must_have_cut(int cut_short) const {
    if (cut_short < points_ / 2) {
      throw Failure{"only " + std::to_string(cut_short) + " of " + std::to_string(points_) + " were cut short"};
    }
  }

  // A little beyond the end: a run may take longer than the measured ones.
  microseconds moment(microseconds whole, int point) const { return whole * 115 * point / (100 * points_); }

  // Starts it, and kills it after a while; its wait status. What one took that ended before corrects what a whole one
  // is taken to last: the machine may have more or less to do than when that was measured.
  int run_until(const std::vector<std::string>& arguments, int point, microseconds& whole) const {
    const auto from = Clock::now();
    const auto until = from + moment(whole, point);
    const pid_t pid = live::start(arguments, scratch_ + "/output");
    const base::Fd pidfd(static_cast<int>(base::check(::syscall(SYS_pidfd_open, pid, 0), "pidfd_open")));
    pollfd ended{pidfd.get(), POLLIN, 0};
    const auto left = std::max<long long>(0, std::chrono::nanoseconds(until - Clock::now()).count());
    const timespec pause{left / 1'000'000'000, left % 1'000'000'000};
    if (::ppoll(&ended, 1, &pause, nullptr) == 1) {
      whole = (3 * whole + std::chrono::duration_cast<microseconds>(Clock::now() - from)) / 4;
    }
    ::kill(pid, SIGKILL);
    int status = 0;
    base::check(::waitpid(pid, &status, 0), "waitpid");
    return status;
  }

  void go_on_after_dump(int status, const std::string& when) {
    // Once the checkpoint is complete, ending the tree is what was asked for.
    if (fs::exists(scratch_ + "/cut/inventory.img")) {
      if (WIFEXITED(status) || !eventually_complete()) {
        gone_after_dump(when);
        must_succeed(restore_arguments("cut"));
      }
    } else if (!worker_.complete()) {
      throw Failure{when + ": a task is gone, and there is no checkpoint; " + worker_.describe()};
    }
    worker_.must_go_on(when);
  }

  // A tree that is being killed may take a moment; one that answers was not.
  bool eventually_complete() {
    const auto until = Clock::now() + std::chrono::milliseconds(50);
    while (worker_.complete() && Clock::now() < until) {
      ::sched_yield();
    }
    return worker_.complete();
  }

  void gone_after_dump(const std::string& when) const {
    if (!eventually([this] { return worker_.alive() == 0; })) {
      throw Failure{when + ": the checkpoint is complete, but only a part of the tree is gone; " + worker_.describe()};
    }
    live::reap_all(limit);
  }

  // True when the tree was there.
  bool all_or_nothing(int status, const std::string& when) {
    // Nobody says when a killed restore has taken all its tasks along; a complete tree is asked. A part of one is on
    // its way out: each task notices at its next gate, and has to be given a processor to get there.
    const bool finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!finished && text_of(scratch_ + "/restore.log").find("Tasks resumed") == std::string::npos) {
      const auto complete_until = Clock::now() + std::chrono::milliseconds(200);
      const auto until = Clock::now() + limit;
      while (worker_.alive() != 0 && Clock::now() < (worker_.complete() ? complete_until : until)) {
        live::reap_all(seconds(0));
      }
    }
    if (worker_.alive() == 0) {
      live::reap_all(limit);
      if (finished) {
        throw Failure{when + ": it said that it was done, but nothing is there"};
      }
      return false;
    }
    if (!worker_.complete()) {
      throw Failure{when + ": a part of the tree is left; " + worker_.describe()};
    }
    worker_.must_go_on(when);
    worker_.end();
    return true;
  }

  // docs/libcompel.md: a parasite that was loaded, but not resident, stays mapped when its master is killed.
  void count_leftovers(const std::set<std::string>& before, const std::string& when) {
    for (const auto& line : worker_.maps()) {
      if (before.count(line) != 0 || !seen_.insert(line).second) {
        continue;
      }
      if (line.find("/dev/zero (deleted)") == std::string::npos) {
        throw Failure{std::string(when).append(": a mapping came: ").append(line)};
      }
      ++leftovers_;
    }
  }

  std::set<std::string> listing() const {
    std::set<std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(scratch_)) {
      if (!entry.path().filename().string().starts_with("report")) {
        all.insert(entry.path().string());
      }
    }
    return all;
  }

  std::string criu_;
  std::string scratch_;
  int points_;
  Worker worker_;
  std::set<std::string> seen_;
  int leftovers_ = 0;
};

bool play(const char* name, int number, const std::string& criu, int points, void (Killing::*what)()) {
  std::string scratch = "/tmp/criu-kill-XXXXXX";
  if (::mkdtemp(scratch.data()) == nullptr) {
    return false;
  }
  std::string failure;
  try {
    Killing killing(criu, scratch, points);
    (killing.*what)();
    killing.end();
  } catch (const Failure& error) {
    failure = error.text;
  } catch (const std::exception& error) {
    failure = error.what();
  }
  live::kill_all_below();
  std::cout << (failure.empty() ? "ok " : "not ok ") << number << " - " << name << "\n";
  std::istringstream lines(failure);
  for (std::string line; std::getline(lines, line);) {
    std::cout << "# " << line << "\n";
  }
  std::cout << std::flush;
  if (failure.empty() || std::getenv("KEEP") == nullptr) {
    fs::remove_all(scratch);
  }
  return failure.empty();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--victim") == 0) {
    return worker_main(argv[2]);
  }
  if (argc < 2) {
    std::cerr << "usage: kill CRIU-CLI [POINTS]\n";
    return 2;
  }
  if (::geteuid() != 0) {
    std::cout << "1..0 # SKIP checkpoints need root\n";
    return 0;
  }
  const int points = argc > 2 ? std::atoi(argv[2]) : 200;
  const auto criu = fs::absolute(argv[1]).string();
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  std::cout << "1..2\n" << std::flush;
  const bool dump = play("a dump that is killed", 1, criu, points, &Killing::over_dump);
  const bool restore = play("a restore that is killed", 2, criu, points, &Killing::over_restore);
  return dump && restore ? 0 : 1;
}
