// SPDX-License-Identifier: GPL-2.0-only
#include "command_line.hpp"

#include <getopt.h>

#include <cstring>

namespace cli {

namespace {

// What getopt needs, made from the library's table. `val` of a long option is 256 + twice its row, and one more for its
// --no- form; no letter gets that far.
class Getopt {
 public:
  Getopt() {
    for (std::size_t row = 0; const auto* option = criu_core_option_at(row); ++row) {
      const int val = 256 + 2 * static_cast<int>(row);
      long_.push_back({option->name, option->argument, nullptr, val});
      if (option->negatable) {
        names_.push_back(std::make_unique<std::string>(std::string("no-") + option->name));
        long_.push_back({names_.back()->c_str(), no_argument, nullptr, val + 1});
      }
      if (option->letter != 0 && letters_.find(option->letter) == letters_.npos) {
        letters_ += option->letter;
        letters_.append(static_cast<std::size_t>(option->argument), ':');
      }
    }
    long_.push_back({});
  }

  // The next option; false at the end of them. Without a name: getopt did not understand it.
  bool next(int argc, char** argv, Given& given, const criu_core_option*& option) const {
    int index = -1;
    const int got = ::getopt_long(argc, argv, letters_.c_str(), long_.data(), &index);
    if (got < 0) {
      return false;
    }
    given = {{}, optarg, {}};
    option = nullptr;
    if (index >= 0 && got >= 256) {
      given.name = long_[static_cast<std::size_t>(index)].name;
      given.spelled = "--" + given.name;
      option = criu_core_option_at(static_cast<std::size_t>(got - 256) / 2);
    } else if (const auto* lettered = by_letter(got)) {
      given.name = lettered->name;
      given.spelled = {'-', static_cast<char>(got)};
      option = lettered;
    }
    return true;
  }

 private:
  static const criu_core_option* by_letter(int letter) {
    for (std::size_t row = 0; const auto* option = criu_core_option_at(row); ++row) {
      if (option->letter == letter) {
        return option;
      }
    }
    return nullptr;
  }

  std::vector<::option> long_;
  std::vector<std::unique_ptr<std::string>> names_;
  std::string letters_;
};

// Help wins over every mistake, wherever it stands.
bool asks_for_help(const Getopt& getopt, int argc, char** argv) {
  std::vector<char*> copy(argv, argv + argc + 1);
  Given given{};
  const criu_core_option* option = nullptr;
  opterr = 0;
  optind = 0;
  while (getopt.next(argc, copy.data(), given, option)) {
    if (option != nullptr && std::strcmp(option->name, "help") == 0) {
      return true;
    }
  }
  return false;
}

// Options for whoever reads the line.
void keep(CommandLine& line, const criu_core_option& option, const Given& given) {
  if (std::strcmp(option.name, "version") == 0) {
    line.version = true;
  } else if (std::strcmp(option.name, "config") == 0) {
    line.config = given.value;
  } else if (std::strcmp(option.name, "no-default-config") == 0) {
    line.no_default_config = true;
  } else if (std::strcmp(option.name, "pidns") == 0) {
    line.own_pids = true;
  }
}

}  // namespace

CommandLine read_command_line(int argc, char** argv) {
  CommandLine line;
  const Getopt getopt;
  if (asks_for_help(getopt, argc, argv)) {
    line.help = true;
    return line;
  }
  Given given{};
  const criu_core_option* option = nullptr;
  opterr = 1;
  optind = 0;
  while (!line.version && !line.wrong && getopt.next(argc, argv, given, option)) {
    if (option == nullptr) {
      line.wrong = true;
    } else if (option->of_the_reader) {
      keep(line, *option, given);
    } else {
      line.options.push_back(given);
    }
  }
  line.words.assign(argv + optind, argv + argc);
  return line;
}

}  // namespace cli
