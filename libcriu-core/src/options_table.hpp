// SPDX-License-Identifier: LGPL-2.1-only
// Every option of CRIU 4.2, once. The command line, configuration files, the C API and the usage text all read this.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "options.hpp"

namespace criu {

// A request that makes no sense as it is written; a program answers with its usage.
class UsageError : public base::Error {
 public:
  using base::Error::Error;
};

enum class Takes { nothing, value, optional_value };

// An option as it was given.
struct Given {
  std::string_view spelled;  // "-t" or "--tree", for messages
  const char* value;         // null: none
  bool on;                   // false: the --no- form
};

struct OptionInfo {
  const char* name;
  char letter;  // 0: none
  Takes takes;
  bool negatable;
  unsigned commands;  // those it changes; the others accept it and pay no heed
  const char* value_name;
  const char* group;
  const char* help;
  // Null: the feature does not exist yet, and asking for it is refused by name.
  void (*apply)(Options&, const Given&);
  // A value that asks for what this version does anyway, of an option that is otherwise not there yet.
  const char* harmless_value = nullptr;
  // Read by whoever reads the request itself (--help, --config …), not part of the options.
  bool of_the_reader = false;
};

std::span<const OptionInfo> option_table();
const OptionInfo* find_option(std::string_view name);

// Applies one option by its long name, "no-NAME" included. An unknown name is a UsageError.
void set_option(Options& options, std::string_view name, const char* value, std::string_view spelled = {});

// Switches one that takes no value on or off, whether or not its name has a "no-" form.
void set_flag(Options& options, std::string_view name, bool on);

// Applies a configuration file. A file that does not exist or cannot be read says nothing.
void load_config(Options& options, const std::string& path);
// The text of one, for those who have it already.
void parse_config(Options& options, std::string_view text, const std::string& path);

// Applies what stands for all programs of this machine: the system's and the user's file (unless told not to), the file
// of the environment, then the explicit one.
void load_default_configs(Options& options, bool skip_defaults, const std::string& explicit_file);
// Environment variables that stand for options.
void read_environment(Options& options);

// Throws when the options do not fit together or to the command, or ask for what is not there yet.
void validate(const Options& options, Command command);

// Makes every name in it independent of the current directory; a second time changes nothing.
void resolve_paths(Options& options);

}  // namespace criu
