// SPDX-License-Identifier: GPL-2.0-only
// coredump: makes core files, for debuggers, out of a checkpoint.
#include <getopt.h>

#include <charconv>
#include <cstdio>
#include <cstring>
#include <exception>
#include <optional>
#include <string>

#include "base/error.hpp"
#include "core_file.hpp"

namespace {

constexpr const char* usage = "usage: coredump [-h] [-i DIR] [-p PID] [-o DIR]\n";

constexpr const char* help =
    "\nMakes core files out of a checkpoint: core.PID for each task.\n\n"
    "  -i DIR, --in DIR    where the images are (default: the current directory)\n"
    "  -p PID, --pid PID   this task alone\n"
    "  -o DIR, --out DIR   where to put the core files (default: the current directory)\n"
    "  -h, --help          show this help\n"
    "      --version       show the version\n";

struct Arguments {
  std::string in = ".";
  std::string out = ".";
  std::optional<std::uint32_t> pid;
};

int fail(const std::string& why) {
  std::fprintf(stderr, "coredump: %s\n", why.c_str());
  return 1;
}

bool is_zombie(const crit::Checkpoint& checkpoint, std::uint32_t pid) {
  return checkpoint.core(pid).tc().task_state() == static_cast<std::uint32_t>(crit::TaskState::zombie);
}

int run(const Arguments& arguments) {
#ifndef __x86_64__
  return fail("ERROR: core files are only supported on: x86_64");
#endif
  const crit::Checkpoint checkpoint(arguments.in);
  coredump::Contents contents(checkpoint);
  bool found = false;
  for (const auto& task : checkpoint.tree()) {
    if (arguments.pid && task.pid() != *arguments.pid) {
      continue;
    }
    found = true;
    if (is_zombie(checkpoint, task.pid())) {
      if (arguments.pid) {
        return fail("task " + std::to_string(task.pid()) + " has ended already: a zombie has no memory");
      }
      continue;
    }
    coredump::write_core(checkpoint, task, contents, arguments.out);
  }
  return found || !arguments.pid ? 0 : fail("no task " + std::to_string(*arguments.pid) + " in " + arguments.in);
}

int wrong(const std::string& why) {
  std::fputs(usage, stderr);
  std::fprintf(stderr, "coredump: error: %s\n", why.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  static const ::option long_options[] = {
      {"in", required_argument, nullptr, 'i'},  {"pid", required_argument, nullptr, 'p'},
      {"out", required_argument, nullptr, 'o'}, {"help", no_argument, nullptr, 'h'},
      {"version", no_argument, nullptr, 'V'},   {}};
  Arguments arguments;
  opterr = 0;
  for (int got = 0; (got = ::getopt_long(argc, argv, ":i:p:o:h", long_options, nullptr)) != -1;) {
    if (got == 'h') {
      std::printf("%s%s", usage, help);
      return 0;
    }
    if (got == 'V') {
      std::printf("%s\n", COREDUMP_VERSION);
      return 0;
    }
    if (got == '?' || got == ':') {
      return wrong(std::string(got == ':' ? "expected one argument: " : "unrecognized arguments: ") + argv[optind - 1]);
    }
    if (got == 'p') {
      std::uint32_t pid = 0;
      const auto* end = optarg + std::strlen(optarg);
      if (std::from_chars(optarg, end, pid).ptr != end || pid == 0) {
        return wrong(std::string("argument -p/--pid: invalid int value: '") + optarg + "'");
      }
      arguments.pid = pid;
    } else {
      (got == 'i' ? arguments.in : arguments.out) = optarg;
    }
  }
  if (optind < argc) {
    return wrong(std::string("unrecognized arguments: ") + argv[optind]);
  }
  try {
    return run(arguments);
  } catch (const std::exception& error) {
    return fail(error.what());
  }
}
