// SPDX-License-Identifier: GPL-2.0-only
// Runs the live tests and says how they went, in TAP.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "live.hpp"
#include "stage.hpp"
#include "victim.hpp"

namespace {

constexpr const char* usage =
    "usage: live [--criu PATH] [--setting dry|host|pidns|container|userns] [--rounds N] [--programs DIR] [--keep] "
    "[--list] "
    "[NAME...]\n"
    "  NAME: run the tests whose names have this in them\n"
    "  --keep: leave the directories of failed tests (images, logs) in place\n";

struct Arguments {
  live::Config config;
  std::vector<std::string> names;
  bool list = false;
};

Arguments parse(int argc, char** argv) {
  Arguments out;
  out.config.programs = LIVE_PROGRAMS;
  if (const char* criu = std::getenv("CRIU_CLI")) {
    out.config.criu = criu;
  }
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) {
        std::cerr << usage;
        std::exit(2);
      }
      return argv[++i];
    };
    if (argument == "--criu") {
      out.config.criu = value();
    } else if (argument == "--setting") {
      const auto setting = value();
      out.config.setting = setting == "host"        ? live::Setting::host
                           : setting == "pidns"     ? live::Setting::pidns
                           : setting == "container" ? live::Setting::container
                           : setting == "userns"    ? live::Setting::userns
                                                    : live::Setting::dry;
    } else if (argument == "--rounds") {
      out.config.rounds = std::stoi(value());
    } else if (argument == "--programs") {
      out.config.programs = value();
    } else if (argument == "--keep") {
      out.config.keep = true;
    } else if (argument == "--list") {
      out.list = true;
    } else if (argument.starts_with("-")) {
      std::cerr << usage;
      std::exit(2);
    } else {
      out.names.push_back(argument);
    }
  }
  // Tests start it from other directories.
  if (out.config.criu.find('/') != std::string::npos) {
    out.config.criu = std::filesystem::absolute(out.config.criu);
  }
  return out;
}

bool wanted(const std::string& name, const std::vector<std::string>& parts) {
  for (const auto& part : parts) {
    if (name.find(part) != std::string::npos) {
      return true;
    }
  }
  return parts.empty();
}

void report(std::size_t number, const std::string& name, const live::Outcome& outcome) {
  const bool ok = outcome.failures.empty();
  std::cout << (ok ? "ok " : "not ok ") << number << " - " << name;
  if (ok && !outcome.skipped.empty()) {
    std::cout << " # SKIP " << outcome.skipped.substr(0, outcome.skipped.find('\n'));
  }
  std::cout << "\n";
  for (const auto& failure : outcome.failures) {
    std::cout << "# " << failure << "\n";
  }
  std::cout << std::flush;
}

int run(const Arguments& arguments) {
  std::vector<const live::Test*> chosen;
  for (const auto& test : live::tests()) {
    const auto setting = arguments.config.setting;
    const bool unfit = (test.options.users.wanted() && setting != live::Setting::userns) ||
                       (setting == live::Setting::dry && test.options.not_dry) ||
                       (live::is_container(setting) && test.options.not_contained);
    if (wanted(test.name, arguments.names) && !unfit) {
      chosen.push_back(&test);
    }
  }
  if (arguments.list) {
    for (const auto* test : chosen) {
      std::cout << test->name << "\n";
    }
    return 0;
  }
  std::cout << "1.." << chosen.size() << "\n" << std::flush;
  std::size_t failed = 0;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    const auto outcome = live::play(*chosen[i], arguments.config);
    report(i + 1, chosen[i]->name, outcome);
    failed += outcome.failures.empty() ? 0 : 1;
  }
  return failed == 0 ? 0 : 1;
}

int victim_main(const std::string& role, const std::string& name, const std::string& directory) {
  for (const auto& test : live::tests()) {
    if (name == test.name) {
      return role == "--victim" ? live::run_victim(test, directory) : live::run_outside(test, directory);
    }
  }
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 2 && std::strcmp(argv[1], "--init") == 0) {
    ::_exit(live::run_init(argv + 2));
  }
  if (argc == 4 && (std::strcmp(argv[1], "--victim") == 0 || std::strcmp(argv[1], "--outside") == 0)) {
    // Not through the destructors of main's world: a test may have closed, replaced or forbidden anything.
    ::_exit(victim_main(argv[1], argv[2], argv[3]));
  }
  auto arguments = parse(argc, argv);
  if (::geteuid() != 0 && !arguments.list) {
    std::cout << "1..0 # SKIP the live tests need root\n";
    return 0;
  }
  std::string scratch = "/tmp/criu-live-XXXXXX";
  if (::mkdtemp(scratch.data()) == nullptr) {
    std::perror("mkdtemp");
    return 1;
  }
  arguments.config.scratch = scratch;
  int status = 1;
  try {
    status = run(arguments);
  } catch (const std::exception& error) {
    std::cout << "Bail out! " << error.what() << "\n";
  }
  std::error_code ignored;
  if (status != 0 && arguments.config.keep) {
    std::cout << "# kept: " << scratch << "\n";
  } else {
    std::filesystem::remove_all(scratch, ignored);
  }
  return status;
}
