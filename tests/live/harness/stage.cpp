// SPDX-License-Identifier: GPL-2.0-only
#include "stage.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>

#include "base/error.hpp"
#include "container.hpp"
#include "process.hpp"
#include "snapshot.hpp"

namespace live {

namespace fs = std::filesystem;
using std::chrono::seconds;

namespace {

constexpr seconds setup_limit{60};
constexpr seconds criu_limit{60};
constexpr seconds finish_limit{60};
constexpr std::size_t log_lines_shown = 40;
constexpr const char* in_sigsuspend = "130";
constexpr const char* in_clock_nanosleep = "230";
constexpr const char* in_restart_syscall = "219";

std::string text_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// What one test does on its stage. Every failure is written down; after one that makes the rest pointless the act
// ends by exception.
class Act {
 public:
  Act(const Test& test, const Config& config, std::string directory)
      : test_(test),
        config_(config),
        directory_(std::move(directory)),
        arrival_(directory_),
        container_({directory_}, config.setting == Setting::userns ? &test.options.users : nullptr) {}

  struct Over {};

  Outcome run() {
    try {
      perform();
    } catch (const Over&) {
    } catch (const std::exception& error) {
      outcome_.failures.emplace_back(error.what());
    }
    collect_failures();
    return outcome_;
  }

 private:
  [[noreturn]] void over(const std::string& failure) {
    outcome_.failures.push_back(failure);
    throw Over{};
  }

  // In a container only what is on the very mount of the root directory is to be seen.
  bool fits_container() const {
    return mount_of(self()) == mount_of("/") && mount_of(config_.programs) == mount_of("/") &&
           mount_of(directory_) == mount_of("/");
  }

  static std::uint64_t mount_of(const std::string& path) {
    struct statx info {};
    base::check(::statx(AT_FDCWD, path.c_str(), 0, STATX_MNT_ID, &info), "statx", path);
    return info.stx_mnt_id;
  }

  bool is_program() const { return test_.body == nullptr; }
  std::string path(const std::string& name) const { return directory_ + "/" + name; }

  void perform() {
    start_victim();
    for (int round = 1; round <= std::min(config_.rounds, test_.options.most_rounds); ++round) {
      if (config_.setting != Setting::dry && !checkpoint(round)) {
        return;
      }
      if (is_program()) {
        check_program();
      }
    }
    if (!is_program()) {
      finish_victim();
    }
  }

  void start_outside() {
    if (!test_.options.outside) {
      return;
    }
    outside_ = start({"/proc/self/exe", "--outside", test_.name, directory_}, path("outside-output"));
    if (!arrival_.wait("outside-ready", outside_, Clock::now() + setup_limit)) {
      over("what is to be outside of the tree did not start\n" + text_of(path("outside-output")));
    }
  }

  void start_victim() {
    if (in_container() && !fits_container()) {
      outcome_.skipped = "the tests and what they write are not all on the file system of the root directory";
      throw Over{};
    }
    start_outside();
    std::vector<std::string> arguments;
    if (is_program()) {
      for (const auto& argument : test_.program.arguments) {
        arguments.push_back(argument[0] == '@' ? config_.programs + "/" + argument.substr(1) : argument);
      }
      arguments.push_back(directory_);
      arguments.insert(arguments.end(), test_.program.more.begin(), test_.program.more.end());
    } else {
      arguments = {self(), "--victim", test_.name, directory_};
    }
    const auto output = is_program() ? path("output") : "/dev/null";
    if (in_container()) {
      arguments.insert(arguments.begin(), {self(), "--init"});
      if (!container_.prepare()) {
        over("cannot prepare the container");
      }
      root_ = start(arguments, output, container_.namespaces(), [this] { return container_.make(); });
      const bool made = container_.attend(root_);
      container_.let_go();
      if (!made) {
        over(std::string("cannot make the container: ") + std::strerror(errno));
      }
    } else {
      root_ = start(arguments, output);
    }
    if (!arrival_.wait("ready", root_, Clock::now() + setup_limit)) {
      outcome_.skipped = text_of(path("skipped"));
      if (!outcome_.skipped.empty()) {
        throw Over{};
      }
      over("the test did not reach its checkpoint\n" + text_of(path("output")));
    }
    find_victim();
  }

  // By its path: the link leads to where a container cannot go.
  static std::string self() { return fs::read_symlink("/proc/self/exe"); }
  bool in_container() const { return is_container(config_.setting); }

  // In a container the tree's own pids are those to be seen, and the victim is what its init has started.
  void find_victim() {
    victim_ = seen_victim_ = seen_root_ = root_;
    if (!in_container()) {
      return;
    }
    std::istringstream children(
        text_of("/proc/" + std::to_string(root_) + "/task/" + std::to_string(root_) + "/children"));
    children >> victim_;
    seen_root_ = 1;
    seen_victim_ = 2;
    fs::create_directory(path("proc"));
    ::umount2(path("proc").c_str(), MNT_DETACH);
    if (!mount_proc_of(root_, path("proc"))) {
      over("cannot mount the /proc of the container");
    }
    look_at_proc(path("proc"));
  }

  // One dump and restore. False when the test ends here because something was meant to fail, and did.
  bool checkpoint(int round) {
    const auto images = path("images-" + std::to_string(round));
    fs::create_directory(images);
    fs::permissions(images, fs::perms::owner_all);  // who is root of a user namespace alone need not see them
    settle([&] { return is_program() || sleepers_of_tree(seen_root_)[seen_victim_] == in_sigsuspend; });
    const auto sleepers = sleepers_of_tree(seen_root_);
    const auto before = snapshot_of_tree(seen_root_);
    if (!dump(images)) {
      settle([&] { return all_asleep_again(sleepers, seen_root_); });
      compare(before, "after the refused dump");
      return true;
    }
    if (test_.options.leave_running) {
      settle([&] { return all_asleep_again(sleepers, seen_root_); });
      compare(before, "after the dump");
      return true;
    }
    if (test_.options.tamper) {
      test_.options.tamper(images);
    }
    if (!restore(images)) {
      return false;
    }
    settle([&] { return is_program() || all_asleep_again(sleepers, seen_root_); });
    compare(before, "after round " + std::to_string(round));
    return true;
  }

  // Nobody tells when a task has reached a system call, so this looks until it has; one that never does will show in
  // what is compared afterwards.
  static void settle(const std::function<bool()>& condition) {
    const auto until = Clock::now() + seconds(2);
    while (!condition() && Clock::now() < until) {
      ::sched_yield();
    }
  }

  void compare(const Snapshot& before, const std::string& when) {
    // A program at work changes all the time; it checks itself.
    if (is_program()) {
      return;
    }
    for (const auto& line : differences(before, snapshot_of_tree(seen_root_), test_.options.ignore)) {
      outcome_.failures.push_back(when);
      outcome_.failures.back().append(": ").append(line);
    }
  }

  // criu-cli with a command; nothing when it hung.
  std::optional<int> criu(const std::string& command, const std::string& images, std::vector<std::string> arguments,
                          const std::vector<std::string>& more) {
    arguments.insert(arguments.begin(), {config_.criu, command, "-D", images, "-v4", "-o", command + ".log"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto mounts = text_of("/proc/self/mountinfo");
    const auto status = live::run(arguments, images + "/" + command + ".out", criu_limit);
    // Those of this stage are seen nowhere else.
    if (const auto now = text_of("/proc/self/mountinfo"); in_container() && now != mounts) {
      outcome_.failures.push_back("the " + command +
                                  " changed the mounts of the host: " + first_difference(mounts, now));
    }
    return status;
  }

  static std::string first_difference(const std::string& before, const std::string& now) {
    std::istringstream was(before), is(now);
    for (std::string old_line, line; std::getline(was, old_line), std::getline(is, line), was || is;) {
      if (old_line != line) {
        return std::string("was ").append(old_line).append(", is ").append(line);
      }
    }
    return {};
  }

  std::string said(const std::string& command, const std::string& images) const {
    return text_of(images + "/" + command + ".log") + text_of(images + "/" + command + ".out");
  }

  [[noreturn]] void criu_failed(const std::string& command, const std::string& images, std::optional<int> status) {
    std::vector<std::string> lines;
    std::istringstream log(said(command, images));
    for (std::string line; std::getline(log, line);) {
      lines.push_back(line);
    }
    const auto from = lines.size() > log_lines_shown ? lines.size() - log_lines_shown : 0;
    std::string text = command + (status ? ": " + describe(*status) : " did not end");
    for (auto at = from; at < lines.size(); ++at) {
      text += "\n  " + lines[at];
    }
    over(text);
  }

  // False when it was meant to fail, and did as it was meant to.
  bool dump(const std::string& images) {
    std::vector<std::string> arguments{"-t", std::to_string(root_)};
    if (test_.options.leave_running) {
      arguments.emplace_back("--leave-running");
    }
    if (in_container()) {
      const auto more = container_.dump_options();
      arguments.insert(arguments.end(), more.begin(), more.end());
    }
    const auto status = criu("dump", images, std::move(arguments), test_.options.dump);
    const auto& expected = test_.options.dump_fails;
    if (status != 0) {
      if (expected.empty() || !status || !WIFEXITED(*status)) {
        criu_failed("dump", images, status);
      }
      if (said("dump", images).find(expected) == std::string::npos) {
        outcome_.failures.push_back("the dump failed, but did not say \"" + expected + "\"");
        criu_failed("dump", images, status);
      }
      return false;
    }
    if (!expected.empty()) {
      over("the dump was meant to fail with \"" + expected + "\"");
    }
    if (!test_.options.leave_running) {
      for (const pid_t pid : reap_all(seconds(10), outside_)) {
        over("task " + std::to_string(pid) + " is alive after the dump");
      }
    }
    return true;
  }

  bool restore(const std::string& images) {
    const auto pidfile = images + "/pid";
    std::vector<std::string> arguments{"-d", "--pidfile", pidfile};
    if (in_container()) {
      const auto more = container_.restore_options();
      arguments.insert(arguments.end(), more.begin(), more.end());
    }
    const auto status = criu("restore", images, std::move(arguments), test_.options.restore);
    const auto& expected = test_.options.restore_fails;
    if (status == 0 && expected.empty()) {
      std::ifstream(pidfile) >> root_;
      find_victim();
      return true;
    }
    if (status == 0) {
      over("the restore was meant to fail with \"" + expected + "\"");
    }
    if (expected.empty() || !status || !WIFEXITED(*status) ||
        said("restore", images).find(expected) == std::string::npos) {
      criu_failed("restore", images, status);
    }
    for (const pid_t pid : reap_all(seconds(10), outside_)) {
      over("task " + std::to_string(pid) + " was left by the failed restore");
    }
    return false;
  }

  void finish_victim() {
    ::kill(victim_, SIGUSR1);
    const auto status = wait_for(root_, Clock::now() + finish_limit);
    if (!status) {
      over("the test did not end after it was told to go on");
    }
    // Exit status 1 stands for failures that are written down.
    if (*status != 0 && !(WIFEXITED(*status) && fs::exists(path("failures")))) {
      outcome_.failures.push_back("the test ended with " + describe(*status));
    }
  }

  void check_program() {
    fs::remove(path("report"));
    if (test_.program.tell == Tell::signal) {
      // An interpreter runs its handlers between its own instructions: a signal that comes just before its sleep waits
      // for the sleep's end.
      settle([this] {
        const auto sleepers = sleepers_of_tree(seen_root_);
        const auto root = sleepers.find(seen_victim_);
        return root != sleepers.end() && (root->second == in_clock_nanosleep || root->second == in_restart_syscall);
      });
      ::kill(victim_, SIGUSR1);
    } else {
      std::ofstream(path("go")) << "go\n";
    }
    if (!arrival_.wait("report", root_, Clock::now() + finish_limit)) {
      over("no report\n" + text_of(path("output")));
    }
    const auto report = text_of(path("report"));
    if (report.empty() || report.find("BAD") != std::string::npos) {
      over("it reports: " + report + "\n" + text_of(path("output")));
    }
  }

  void collect_failures() {
    std::istringstream lines(text_of(path("failures")));
    for (std::string line; std::getline(lines, line);) {
      outcome_.failures.push_back(line);
    }
  }

  const Test& test_;
  const Config& config_;
  std::string directory_;
  Arrival arrival_;
  Container container_;
  pid_t root_ = 0;                         // of the tree
  pid_t victim_ = 0;                       // of the test: the same but in a container
  pid_t seen_root_ = 0, seen_victim_ = 0;  // as /proc is looked at
  pid_t outside_ = 0;
  Outcome outcome_;
};

// The process of the stage. What it found goes to its files, which the harness reads when it has ended.
[[noreturn]] void stage_main(const Test& test, const Config& config, const std::string& directory) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  Outcome outcome;
  if (config.setting == Setting::pidns) {
    if (!mount_own_proc()) {
      outcome.failures.push_back(std::string("can't mount /proc: ") + std::strerror(errno));
    }
  } else {
    const bool contained = is_container(config.setting);
    if (contained && !make_mounts_private()) {
      outcome.failures.push_back(std::string("can't make mounts private: ") + std::strerror(errno));
    }
    if (contained && (::setenv("LIVE_CONTAINER", config.setting == Setting::userns ? "userns" : "yes", 1) != 0 ||
                      ::unshare(CLONE_NEWNET) != 0 || !Container::make_bridge())) {
      outcome.failures.push_back(std::string("can't make a network: ") + std::strerror(errno));
    }
    // Orphans of the tree end up here instead of with an init that may reap them late.
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  }
  // Root of that container is the owner, too, of what is its own here.
  if (config.setting == Setting::userns &&
      (::chown(directory.c_str(), users_begin, users_begin) != 0 || !Container::restrict_dev())) {
    outcome.failures.push_back(std::string("can't prepare for other users: ") + std::strerror(errno));
  }
  // What a tree leaves of System V IPC goes with the stage. The programs of this suite run in it, too.
  if (::unshare(CLONE_NEWIPC) != 0) {
    outcome.failures.push_back(std::string("can't make an IPC namespace: ") + std::strerror(errno));
  }
  if (outcome.failures.empty()) {
    outcome = Act(test, config, directory).run();
  }
  kill_all_below();
  if (!outcome.skipped.empty()) {
    std::ofstream(directory + "/outcome.skipped") << outcome.skipped;
  }
  std::ofstream out(directory + "/outcome");
  for (const auto& failure : outcome.failures) {
    out << failure << "\n";
  }
  out.close();
  if (!out) {
    std::fprintf(stderr, "cannot write %s/outcome: %s\n", directory.c_str(), std::strerror(errno));
    ::_exit(1);
  }
  ::_exit(0);
}

std::string directory_name(const std::string& test) {
  std::string name;
  for (const char c : test) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    name += plain ? c : '-';
  }
  return name;
}

}  // namespace

Outcome play(const Test& test, const Config& config) {
  const auto directory = config.scratch + "/" + directory_name(test.name);
  fs::create_directories(directory);
  // Tests that give up being root still write their results here.
  fs::permissions(config.scratch, fs::perms(0755));
  fs::permissions(directory, fs::perms(0777));
  const unsigned long flags = SIGCHLD | (config.setting == Setting::pidns ? CLONE_NEWPID | CLONE_NEWNS
                                         : is_container(config.setting)   ? CLONE_NEWNS
                                                                          : 0UL);
  const auto stage = static_cast<pid_t>(base::check(::syscall(SYS_clone, flags, 0, 0, 0, 0), "clone"));
  if (stage == 0) {
    stage_main(test, config, directory);
  }
  int status = 0;
  ::waitpid(stage, &status, 0);

  Outcome outcome;
  outcome.skipped = text_of(directory + "/outcome.skipped");
  std::istringstream lines(text_of(directory + "/outcome"));
  for (std::string line; std::getline(lines, line);) {
    outcome.failures.push_back(line);
  }
  if (status != 0 || !fs::exists(directory + "/outcome")) {
    outcome.failures.push_back("the stage ended with " + describe(status));
  }
  if (outcome.failures.empty() || !config.keep) {
    std::error_code ignored;
    fs::remove_all(directory, ignored);
  }
  return outcome;
}

}  // namespace live
