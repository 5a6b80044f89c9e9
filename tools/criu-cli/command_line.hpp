// SPDX-License-Identifier: GPL-2.0-only
// From argv to a set of options and a command with its words.
#pragma once

#include <criu/core.hpp>
#include <string>
#include <vector>

namespace cli {

struct Given {
  std::string name;     // as the library knows it, "no-" included
  const char* value;    // null: none
  std::string spelled;  // "-t" or "--tree"
};

struct CommandLine {
  std::vector<Given> options;
  std::vector<char*> words;  // the command first
  bool help = false;
  bool version = false;  // options behind it were not read
  bool wrong = false;    // getopt has complained on stderr
  bool no_default_config = false;
  bool own_pids = false;
  const char* config = nullptr;
};

// Options and words may come in any order; "--" ends the options.
CommandLine read_command_line(int argc, char** argv);

}  // namespace cli
