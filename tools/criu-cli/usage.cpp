// SPDX-License-Identifier: GPL-2.0-only
#include "usage.hpp"

#include <criu/core.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace cli {

namespace {

constexpr const char* synopsis = R"(
Usage:
  @ dump -t PID [-D DIR] [OPTIONS]
  @ pre-dump -t PID [-D DIR] [OPTIONS]
  @ restore [-D DIR] [OPTIONS]
  @ check [-t PID | --feature NAME] [OPTIONS]

Commands:
  dump         checkpoint the tree rooted at PID into the image directory
  pre-dump     copy the memory of the tree, which goes on
  restore      bring back the tree of a checkpoint
  check        say whether this kernel, or the tree of PID, allows a checkpoint
  service      serve clients of the RPC at a socket
  swrk FD      serve the one that has started this program
Known, but not supported by this version yet:
  lazy-pages  page-server  cpuinfo dump|check  dedup
)";

// Said with the name this program was called by.
void print_synopsis() {
  for (const char* at = synopsis; *at != '\0'; ++at) {
    if (*at == '@') {
      std::fputs(program_invocation_short_name, stdout);
    } else {
      std::fputc(*at, stdout);
    }
  }
}

std::string left_column(const criu_core_option& option) {
  std::string left = option.letter != 0 ? std::string("  -") + option.letter + ", --" : std::string("      --");
  left += option.negatable ? "[no-]" : "";
  left += option.name;
  if (option.argument == CRIU_CORE_ARGUMENT) {
    left += std::string(" ") + option.value_name;
  } else if (option.argument == CRIU_CORE_OPTIONAL_ARGUMENT) {
    left += std::string("[=") + option.value_name + "]";
  }
  return left;
}

// Text in the right column, broken between words.
void print_wrapped(const std::string& left, std::string text) {
  constexpr std::size_t column = 34;
  constexpr std::size_t width = 84;
  std::string line = left;
  if (line.size() + 2 > column) {
    std::printf("%s\n", line.c_str());
    line.clear();
  }
  while (!text.empty()) {
    line.resize(column, ' ');
    std::size_t end = text.size();
    if (end > width && (end = text.rfind(' ', width)) == text.npos) {
      end = text.size();
    }
    std::printf("%s%s\n", line.c_str(), text.substr(0, end).c_str());
    text.erase(0, end + 1 > text.size() ? text.size() : end + 1);
    line.clear();
  }
}

void print_group(const char* group, bool supported) {
  bool headed = false;
  for (std::size_t row = 0; const auto* option = criu_core_option_at(row); ++row) {
    if (std::strcmp(option->group, group) != 0 || (option->supported != 0) != supported) {
      continue;
    }
    if (supported && !headed) {
      std::printf("\n%s:\n", group);
      headed = true;
    }
    print_wrapped(left_column(*option), option->help);
  }
}

std::vector<const char*> groups() {
  std::vector<const char*> names;
  for (std::size_t row = 0; const auto* option = criu_core_option_at(row); ++row) {
    if (names.empty() || std::strcmp(names.back(), option->group) != 0) {
      names.push_back(option->group);
    }
  }
  return names;
}

}  // namespace

void print_short_usage() {
  print_synopsis();
  std::printf("\nTry -h|--help for more info\n");
}

void print_long_usage() {
  print_synopsis();
  std::printf(
      "\nOptions with [no-] are switched off by their --no- form. Configuration files hold them one a line,\n"
      "without the dashes: /etc/criu/default.conf, $HOME/.criu/default.conf, $CRIU_CONFIG_FILE.\n");
  const auto names = groups();
  for (const auto* group : names) {
    print_group(group, true);
  }
  std::printf("\nKnown, but refused by this version, which has not got what they ask for yet:\n");
  for (const auto* group : names) {
    print_group(group, false);
  }
  std::printf("\nNames for check --feature:\n");
  std::string line;
  for (std::size_t row = 0; const auto* name = criu_core_feature_at(row); ++row) {
    line += std::string(line.empty() ? "" : " ") + name;
  }
  print_wrapped("", line);
}

}  // namespace cli
