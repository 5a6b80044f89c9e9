// SPDX-License-Identifier: GPL-2.0-only
#include "measure.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <sstream>

#include "base/error.hpp"
#include "base/fd.hpp"

namespace bench {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t gib = 1 << 30;
constexpr std::size_t block = 1 << 20;

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double best_of(int times, const std::function<double()>& run) {
  double best = std::numeric_limits<double>::max();
  for (int i = 0; i < times; ++i) {
    best = std::min(best, run());
  }
  return best;
}

base::Mapping fresh_gib() {
  return base::Mapping(::mmap(nullptr, gib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), gib);
}

double write_gib(const std::string& path, const base::Mapping& from) {
  ::unlink(path.c_str());
  const base::Fd fd(base::check(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), "open", path));
  return seconds_of([&] {
    for (std::size_t at = 0; at < gib; at += block) {
      base::check(::write(fd.get(), from.data() + at, block), "write", path);
    }
  });
}

double read_gib(const std::string& path) {
  const base::Fd fd(base::check(::open(path.c_str(), O_RDONLY | O_CLOEXEC), "open", path));
  const auto into = fresh_gib();
  return seconds_of([&] {
    for (std::size_t at = 0; at < gib; at += block) {
      base::check(::read(fd.get(), into.data() + at, block), "read", path);
    }
  });
}

struct Ended {
  int status;
  long largest_kib;
};

Ended run(const std::vector<std::string>& arguments, const std::string& output) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const auto& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  pid_t pid = 0;
  const int error = ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) {
    throw base::Error("start", arguments[0], error);
  }
  int status = 0;
  rusage usage{};
  ::wait4(pid, &status, 0, &usage);
  return {status, usage.ru_maxrss};
}

// Everything below this process, which adopts orphans: killed and reaped.
void clear() {
  while (true) {
    std::ifstream children("/proc/thread-self/children");
    bool any = false;
    for (pid_t pid = 0; children >> pid;) {
      ::kill(pid, SIGKILL);
      any = true;
    }
    if (!any) {
      return;
    }
    ::waitpid(-1, nullptr, 0);  // one at a time: the children of who has died are ours only now
  }
}

double size_on_disk_mib(const std::string& directory) {
  double bytes = 0;
  for (const auto& entry : fs::directory_iterator(directory)) {
    struct stat st {};
    if (::lstat(entry.path().c_str(), &st) == 0) {
      bytes += static_cast<double>(st.st_blocks) * 512;
    }
  }
  return bytes / (1 << 20);
}

// dump_stats_entry.frozen_time: the second field of the first message of the one record. Three nested varints are not
// worth a generated class here.
double frozen_seconds(const std::string& directory) {
  std::ifstream file(directory + "/stats-dump", std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  constexpr std::size_t magics_and_length = 12;
  constexpr char frozen_time_tag = 0x10;
  std::size_t at = magics_and_length;
  const auto varint = [&bytes, &at] {
    std::uint64_t value = 0;
    for (unsigned shift = 0; at < bytes.size() && shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes[at++]);
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) {
        break;
      }
    }
    return value;
  };
  varint();  // the tag of the dump's statistics
  varint();  // their length
  while (at < bytes.size()) {
    const auto tag = varint();
    const auto value = varint();
    if (tag == frozen_time_tag) {
      return static_cast<double>(value) / 1e6;
    }
  }
  return 0;
}

double timed_criu(const std::vector<std::string>& arguments, const std::string& directory, double* largest_mib) {
  const auto output = directory + "/out";
  Ended ended{};
  const double time = seconds_of([&] { ended = run(arguments, output); });
  if (ended.status != 0) {
    std::ifstream text(output);
    throw base::Error("criu-cli " + arguments[1],
                      std::string(std::istreambuf_iterator<char>(text), std::istreambuf_iterator<char>()), 0);
  }
  if (largest_mib != nullptr) {
    *largest_mib = std::max(*largest_mib, static_cast<double>(ended.largest_kib) / 1024);
  }
  return time;
}

}  // namespace

namespace {

// The memory of a virtual machine comes from its host when it is touched first, which takes longer than all that is
// measured here: a tree, its images and the tree again need three times a gibibyte.
void have_memory() {
  std::vector<base::Mapping> all;
  for (int i = 0; i < 4; ++i) {
    all.push_back(fresh_gib());
    std::memset(all.back().data(), 1, gib);
  }
}

Baseline measure_here(const std::string& directory) {
  have_memory();
  const auto path = directory + "/baseline";
  const auto warm = fresh_gib();
  std::memset(warm.data(), 0x5a, gib);
  Baseline out{};
  out.write_gib = best_of(3, [&] { return write_gib(path, warm); });
  out.read_gib = best_of(3, [&] { return read_gib(path); });
  ::unlink(path.c_str());
  return out;
}

double measure_spawn() {
  constexpr int spawns = 50;
  const auto many = [] {
    for (int i = 0; i < spawns; ++i) {
      run({"true"}, "/dev/null");
    }
  };
  return best_of(3, [&many] { return seconds_of(many); }) / spawns;
}

}  // namespace

Baseline measure_baseline(const std::string& directory) {
  // In a process of its own: a child's largest resident set starts with its parent's, and this one's would be 2 GiB.
  int ends[2];
  base::check(::pipe2(ends, O_CLOEXEC), "pipe");
  const base::Fd in(ends[0]);
  base::Fd out(ends[1]);
  const auto pid = base::check(::fork(), "fork");
  if (pid == 0) {
    const auto measured = measure_here(directory);
    ::_exit(::write(out.get(), &measured, sizeof measured) == sizeof measured ? 0 : 1);
  }
  out.reset();
  Baseline measured{};
  const bool got = ::read(in.get(), &measured, sizeof measured) == sizeof measured;
  ::waitpid(pid, nullptr, 0);
  if (!got) {
    throw base::Error("measure", "the machine's own copy speed", 0);
  }
  measured.spawn = measure_spawn();
  return measured;
}

Result measure(const std::string& criu, const std::string& directory, Load load, std::size_t amount, int times) {
  Result best;
  best.dump = best.restore = std::numeric_limits<double>::max();
  for (int i = 0; i < times; ++i) {
    const auto images = directory + "/images";
    fs::remove_all(images);
    fs::create_directory(images);
    const auto pid = start_victim(load, amount);
    std::vector<std::string> dump{criu, "dump", "-D", images, "-t", std::to_string(pid)};
    std::vector<std::string> restore{criu, "restore", "-D", images, "-d"};
    if (load == Load::connections) {
      dump.emplace_back("--tcp-established");
      restore.emplace_back("--tcp-established");
    }
    best.dump = std::min(best.dump, timed_criu(dump, images, &best.dumper_mib));
    clear();
    best.disk_mib = size_on_disk_mib(images);
    best.restore = std::min(best.restore, timed_criu(restore, images, nullptr));
    clear();
    fs::remove_all(images);
  }
  return best;
}

double measure_frozen(const std::string& criu, const std::string& directory, Load load, std::size_t amount, int times) {
  const auto images = directory + "/images";
  const auto pid = start_victim(load, amount);
  const auto best = best_of(times, [&] {
    fs::remove_all(images);
    fs::create_directory(images);
    timed_criu({criu, "dump", "-D", images, "-t", std::to_string(pid), "--leave-running"}, images, nullptr);
    return frozen_seconds(images);
  });
  clear();
  fs::remove_all(images);
  return best;
}

}  // namespace bench
