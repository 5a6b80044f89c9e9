// SPDX-License-Identifier: GPL-2.0-only
// Measures dumps and restores as ratios to what this machine takes for plain copies and forks, in one run, and says
// which of the goals in docs/performance.md are met.
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "measure.hpp"

namespace {

struct Row {
  std::string what;
  double amount;   // seconds, or MiB where that is what is measured
  double ratio;    // to the baseline named
  std::string to;  // the baseline
  double goal;     // the largest ratio that is good
};

void print(const Row& row) {
  const bool mib = row.to.find("MiB") != std::string::npos;
  std::printf("| %s | %.2f %s | %.2f | %s | %.2f | %s |\n", row.what.c_str(), mib ? row.amount : row.amount * 1e3,
              mib ? "MiB" : "ms", row.ratio, row.to.c_str(), row.goal, row.ratio <= row.goal ? "yes" : "no");
  std::fflush(stdout);
}

class Table {
 public:
  Table(std::string criu, std::string directory, int times)
      : criu_(std::move(criu)), directory_(std::move(directory)), times_(times) {}

  // Whether all goals are met; with a name, of that part alone.
  bool print_all(const std::string& only) {
    baseline_ = bench::measure_baseline(directory_);
    std::printf("This machine: write of 1 GiB %.0f ms, read %.0f ms, fork and exec of `true` %.2f ms. Best of %d.\n\n",
                baseline_.write_gib * 1e3, baseline_.read_gib * 1e3, baseline_.spawn * 1e3, times_);
    std::printf("| what | measured | ratio | to | goal | met |\n| --- | ---: | ---: | --- | ---: | --- |\n");
    const std::pair<const char*, std::function<void()>> parts[] = {
        {"memory", [this] { memory(); }},
        {"small", [this] { small(); }},
        {"threads", [this] { many("threads", bench::Load::threads, 1000, 60); }},
        {"processes", [this] { many("processes", bench::Load::processes, 200, 150); }},
        {"mappings", [this] { many("mappings", bench::Load::mappings, 5000, 40); }},
        {"sockets", [this] { connections(); }},
    };
    for (const auto& [name, measure] : parts) {
      if (only.empty() || only == name) {
        measure();
      }
    }
    return met_;
  }

 private:
  void add(const Row& row) {
    print(row);
    met_ = met_ && row.ratio <= row.goal;
  }

  void memory() {
    const auto random = bench::measure(criu_, directory_, bench::Load::random, 1024, times_);
    add({"dump, 1 GiB random", random.dump, random.dump / baseline_.write_gib, "write", 1.25});
    add({"restore, 1 GiB random", random.restore, random.restore / baseline_.read_gib, "read", 1.0});
    const auto zero = bench::measure(criu_, directory_, bench::Load::zero, 1024, times_);
    add({"dump, 1 GiB zeros", zero.dump, zero.dump / random.dump, "dump of random", 0.45});
    const auto untouched = bench::measure(criu_, directory_, bench::Load::untouched, 1024, times_);
    const auto nothing = bench::measure(criu_, directory_, bench::Load::untouched, 0, times_);
    // "Nothing" within what one run differs from the next.
    add({"dump, 1 GiB untouched", untouched.dump, untouched.dump / nothing.dump, "dump without it", 1.2});
    add({"disk, 1 GiB zeros", zero.disk_mib, zero.disk_mib, "1 MiB", 2});
    add({"memory of the dumper, 1 GiB random", random.dumper_mib, random.dumper_mib / 64, "64 MiB", 1.0});
  }

  void small() {
    const auto sleeper = bench::measure(criu_, directory_, bench::Load::random, 1, times_ * 3);
    add({"dump, 1 MiB asleep", sleeper.dump, sleeper.dump / baseline_.spawn, "`true`", 5});
    const auto frozen = bench::measure_frozen(criu_, directory_, bench::Load::random, 1, times_ * 3);
    add({"frozen, 1 MiB asleep that goes on", frozen, frozen / baseline_.spawn, "`true`", 1});
    add({"restore, 1 MiB asleep", sleeper.restore, sleeper.restore / baseline_.spawn, "`true`", 4});
  }

  // Goals in milliseconds on a machine that takes one for `true`.
  // And ten times as many take ten times as long, and a third more at most.
  void many(const std::string& name, bench::Load load, std::size_t amount, double goal) {
    const auto what = std::to_string(amount) + " " + name;
    const auto few = bench::measure(criu_, directory_, load, amount, times_);
    add({"dump, " + what, few.dump, few.dump / baseline_.spawn, "`true`", goal});
    add({"restore, " + what, few.restore, few.restore / baseline_.spawn, "`true`", goal});
    const auto many = bench::measure(criu_, directory_, load, amount * 10, 1);
    add({"dump, ten times the " + name, many.dump, many.dump / few.dump, "one time", 13.3});
    add({"restore, ten times the " + name, many.restore, many.restore / few.restore, "one time", 13.3});
  }

  // What 500 of them take more than none, on a machine that takes a millisecond for `true`; and forty times as many
  // take forty times that, and a third more at most.
  void connections() {
    constexpr std::size_t few = 500, times_more = 40;
    constexpr double goal = 25, linear = 1.33 * times_more;
    const auto none = bench::measure(criu_, directory_, bench::Load::connections, 0, times_ * 3);
    const auto some = bench::measure(criu_, directory_, bench::Load::connections, few, times_);
    const double dump = some.dump - none.dump, restore = some.restore - none.restore;
    add({"dump, 500 connections", dump, dump / baseline_.spawn, "`true`", goal});
    add({"restore, 500 connections", restore, restore / baseline_.spawn, "`true`", goal});
    const auto many = bench::measure(criu_, directory_, bench::Load::connections, few * times_more, 1);
    add({"dump, 20000 connections", many.dump - none.dump, (many.dump - none.dump) / dump, "500 of them", linear});
    add({"restore, 20000 connections", many.restore - none.restore, (many.restore - none.restore) / restore,
         "500 of them", linear});
  }

  std::string criu_, directory_;
  int times_;
  bench::Baseline baseline_{};
  bool met_ = true;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--victim") == 0) {
    return bench::victim_main(argv[2], std::strtoul(argv[3], nullptr, 10));
  }
  std::string criu;
  // Images on tmpfs, as the goals say.
  std::string directory = "/dev/shm";
  int times = 3;
  std::string only;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--criu") {
      criu = argv[i + 1];
    } else if (name == "--dir") {
      directory = argv[i + 1];
    } else if (name == "--times") {
      times = std::atoi(argv[i + 1]);
    } else if (name == "--only") {
      only = argv[i + 1];
    }
  }
  if (criu.empty() || ::geteuid() != 0) {
    std::fprintf(stderr,
                 "usage: bench --criu PATH [--dir TMPFS] [--times N] "
                 "[--only memory|small|threads|processes|mappings|sockets]  "
                 " (as root)\n");
    return 2;
  }
  directory += "/criu-bench-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) {
    std::perror("mkdtemp");
    return 1;
  }
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  int status = 1;
  try {
    status = Table(criu, directory, times).print_all(only) ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  std::error_code ignored;
  std::filesystem::remove_all(directory, ignored);
  return status;
}
