// SPDX-License-Identifier: GPL-2.0-only
// The command line over libcriu-core: reads what is asked for, calls the library, says how it went. No logic of its
// own.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "command_line.hpp"
#include "own_pids.hpp"
#include "usage.hpp"

namespace {

// What programs that call CRIU know.
constexpr int failure = 1;
constexpr int removed_command = 255;
constexpr int vetoed_after_dump = 255;

using Options = criu::core::Options;

void complain(const std::string& text) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, text.c_str());
}

int wrong_usage(const std::string& text) {
  complain(text);
  cli::print_short_usage();
  return failure;
}

// An error of the library is in its log already; one who looks at the terminal must see it as well.
int report(const criu::core::Error& error) {
  if (error.kind() == CRIU_CORE_PRIVILEGE) {
    std::printf("%s\n", error.what());
  } else if (!criu_core_log_is_stderr()) {
    complain(error.what());
  }
  if (error.kind() == CRIU_CORE_USAGE) {
    cli::print_short_usage();
  }
  return error.kind() == CRIU_CORE_POST_DUMP ? vetoed_after_dump : failure;
}

using Words = std::vector<char*>;

using cli::CommandLine;

int run_dump(Options& options, const CommandLine&) {
  criu::core::dump(options);
  return 0;
}

int run_pre_dump(Options& options, const CommandLine&) {
  criu::core::pre_dump(options);
  return 0;
}

// Becomes the command behind `--exec-cmd --`, which so becomes the parent of the tree.
int become(const Words& words) {
  std::vector<char*> command(words.begin() + 1, words.end());
  command.push_back(nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::execvp(command[0], command.data());
  complain(std::string("can't execute ") + command[0] + ": " + std::strerror(errno));
  return failure;
}

int restore_with_own_pids(Options& options) {
  const auto report_thrown = [] {
    try {
      throw;
    } catch (const criu::core::Error& error) {
      return report(error);
    }
  };
  return cli::in_own_pids(
      criu_core_options_detached(options.get()) != 0, [&] { return criu::core::restore(options); }, report_thrown);
}

int run_restore(Options& options, const CommandLine& line) {
  if (line.own_pids) {
    return restore_with_own_pids(options);
  }
  criu::core::restore(options);
  if (criu_core_options_exec_cmd(options.get())) {
    return become(line.words);
  }
  if (!criu_core_options_detached(options.get())) {
    // How the tasks end is no matter of ours.
    while (::waitpid(-1, nullptr, 0) >= 0 || errno == EINTR) {
    }
  }
  return 0;
}

int run_check(Options& options, const CommandLine&) {
  const auto verdict = criu::core::check(options);
  for (const auto& line : verdict.lines) {
    std::printf("%s\n", line.c_str());
  }
  return verdict.good ? 0 : failure;
}

int run_service(Options& options, const CommandLine&) {
  criu::core::detail::call(criu_core_service, static_cast<const criu_core_options*>(options.get()));
  return 0;
}

// A worker for the client that has started it. It reports over its socket, and to its exit status.
int run_worker(const Words& words, Options& options) {
  char* end = nullptr;
  const long fd = std::strtol(words[1], &end, 10);
  if (*words[1] == '\0' || *end != '\0' || fd < 0 || fd > INT_MAX) {
    return wrong_usage(std::string("invalid descriptor: ") + words[1]);
  }
  try {
    return criu::core::detail::call(criu_core_serve, static_cast<const criu_core_options*>(options.get()),
                                    static_cast<int>(fd));
  } catch (const criu::core::Error& error) {
    return report(error);
  }
}

struct Command {
  const char* name;
  criu_core_command number;
  int (*run)(Options&, const CommandLine&);
};

constexpr Command commands[] = {
    {"dump", CRIU_CORE_DUMP, run_dump},          {"pre-dump", CRIU_CORE_PRE_DUMP, run_pre_dump},
    {"restore", CRIU_CORE_RESTORE, run_restore}, {"check", CRIU_CORE_CHECK, run_check},
    {"service", CRIU_CORE_SERVICE, run_service},
};

constexpr std::string_view later_commands[] = {"lazy-pages", "page-server", "dedup"};

int refuse(std::string_view command) {
  complain(std::string(command) + ": not supported by this version yet");
  return failure;
}

int cpuinfo(const Words& words) {
  if (words.size() < 2) {
    return wrong_usage("cpuinfo requires an action: dump or check");
  }
  const std::string_view action = words[1];
  if (action != "dump" && action != "check") {
    return wrong_usage("unknown cpuinfo sub-command: " + std::string(action));
  }
  return refuse("cpuinfo");
}

// All words that are no command of this version, each with its own answer.
int other_command(const Words& words, Options& options) {
  const std::string_view name = words[0];
  if (name == "exec") {
    complain("The \"exec\" action is deprecated by the Compel library.");
    return removed_command;
  }
  if (name == "show") {
    complain("The \"show\" action is deprecated by the CRIT utility.");
    complain("To view an image use the \"crit decode -i $name --pretty\" command.");
    return removed_command;
  }
  if (name == "swrk") {
    if (words.size() != 2) {
      std::fprintf(stderr, "Usage: %s swrk <fd>\n", program_invocation_short_name);
      return failure;
    }
    return run_worker(words, options);
  }
  if (name == "cpuinfo") {
    return cpuinfo(words);
  }
  for (const auto later : later_commands) {
    if (name == later) {
      return refuse(name);
    }
  }
  return wrong_usage("unknown command: " + std::string(name));
}

// What the words behind a command may be; 0: they are fine.
int check_words(const Command& command, const CommandLine& line, const Options& options) {
  const auto& words = line.words;
  if (line.own_pids) {
    if (command.number != CRIU_CORE_RESTORE) {
      return wrong_usage("--pidns is available for the restore command only");
    }
    if (criu_core_options_exec_cmd(options.get())) {
      return wrong_usage("--pidns and --exec-cmd cannot be used together");
    }
  }
  const auto extra = words.size() - 1;
  if (criu_core_options_exec_cmd(options.get())) {
    if (command.number != CRIU_CORE_RESTORE) {
      return wrong_usage("--exec-cmd is available for the restore command only");
    }
    if (criu_core_options_detached(options.get())) {
      return wrong_usage("--restore-detached and --exec-cmd cannot be used together");
    }
    return extra == 0 ? wrong_usage("--exec-cmd requires a command") : 0;
  }
  if (extra > 0) {
    return wrong_usage(std::string("excessive parameter") + (extra > 1 ? "s" : "") + " for command " + command.name);
  }
  return 0;
}

int run(const Command& command, const CommandLine& line, Options& options) {
  try {
    criu::core::detail::call(criu_core_check_privileges, options.get());
    if (const int wrong = check_words(command, line, options)) {
      return wrong;
    }
    criu::core::detail::call(criu_core_start, options.get(), command.number);
    return command.run(options, line);
  } catch (const criu::core::Error& error) {
    return report(error);
  }
}

int run(const cli::CommandLine& line, Options& options) {
  criu::core::detail::call(criu_core_options_load_defaults, options.get(), static_cast<int>(line.no_default_config),
                           line.config);
  for (const auto& given : line.options) {
    criu::core::detail::call(criu_core_options_set_as, options.get(), given.name.c_str(), given.value,
                             given.spelled.c_str());
  }
  if (line.wrong) {
    cli::print_short_usage();
    return failure;
  }
  if (line.version) {
    std::printf("Version: %s\n", criu_core_version());
    return 0;
  }
  ::signal(SIGPIPE, SIG_IGN);
  if (line.words.empty()) {
    return wrong_usage("command is required");
  }
  for (const auto& command : commands) {
    if (std::strcmp(command.name, line.words[0]) == 0) {
      return run(command, line, options);
    }
  }
  return other_command(line.words, options);
}

// A hook of CRIU's own tests: a number that no fault can have is a mistake of the caller.
bool sane_environment() {
  const char* fault = std::getenv("CRIU_FAULT");
  if (fault == nullptr) {
    return true;
  }
  const int number = std::atoi(fault);
  return number > 0 && number <= 138;
}

}  // namespace

int main(int argc, char** argv) {
  if (!sane_environment()) {
    complain("CRIU_FAULT out of bounds.");
    return failure;
  }
  if (argc < 2) {
    cli::print_short_usage();
    return failure;
  }
  const auto line = cli::read_command_line(argc, argv);
  if (line.help) {
    cli::print_long_usage();
    return 0;
  }
  Options options;
  int result = failure;
  criu_core_hold_log();
  try {
    result = run(line, options);
  } catch (const criu::core::Error& error) {
    result = report(error);
  }
  criu_core_release_log(options.get());
  return result;
}
