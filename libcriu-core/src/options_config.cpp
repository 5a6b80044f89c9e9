// SPDX-License-Identifier: LGPL-2.1-only
// Configuration files: an option a line, its long name without the dashes, then its value.
#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>

#include "base/fd.hpp"
#include "log.hpp"
#include "options_table.hpp"

namespace criu {

namespace {

constexpr std::string_view blanks = " \t\r";

struct Line {
  std::string name;
  std::optional<std::string> value;
};

[[noreturn]] void malformed(const std::string& path, std::size_t number) {
  throw base::Error("Unsupported configuration file format. Please consult man page criu(8)",
                    path + " line " + std::to_string(number), 0);
}

// The value of a line: one word, or one text in double quotes with \" for a quote. False: neither, or something behind.
bool parse_value(std::string_view text, std::string& value) {
  std::size_t at = 0;
  if (text.front() != '"') {
    at = std::min(text.find_first_of(blanks), text.size());
    value = text.substr(0, at);
  } else {
    for (at = 1; at < text.size() && text[at] != '"'; ++at) {
      if (text[at] == '\\' && at + 1 < text.size() && text[at + 1] == '"') {
        ++at;
      }
      value += text[at];
    }
    if (at == text.size()) {
      return false;
    }
    ++at;
  }
  return text.find_first_not_of(blanks, at) == text.npos;
}

// Nothing for a line that says nothing.
std::optional<Line> parse_line(std::string_view text, const std::string& path, std::size_t number) {
  // A # ends the line wherever it stands, even between quotes: files in use rely on it.
  text = text.substr(0, text.find('#'));
  const auto begin = text.find_first_not_of(blanks);
  if (begin == text.npos) {
    return std::nullopt;
  }
  text.remove_prefix(begin);
  const auto end = std::min(text.find_first_of(blanks), text.size());
  Line line{std::string(text.substr(0, end)), std::nullopt};
  const auto rest = text.find_first_not_of(blanks, end);
  if (rest != text.npos) {
    std::string value;
    if (!parse_value(text.substr(rest), value)) {
      malformed(path, number);
    }
    line.value = std::move(value);
  }
  if (line.name.find('"') != line.name.npos) {
    malformed(path, number);
  }
  return line;
}

void apply(Options& options, Line line, const std::string& where) {
  if (const auto equals = line.name.find('='); equals != line.name.npos) {
    if (line.value) {
      LOG_WARN("{}: \"{}\" is not part of any option", where, *line.value);
    }
    line.value = line.name.substr(equals + 1);
    line.name.resize(equals);
  } else if (line.value) {
    // A value after a blank belongs to an option that needs one; `verbosity 4` has always meant a bare `-v`.
    const auto* option = find_option(line.name.starts_with("no-") ? std::string_view(line.name).substr(3) : line.name);
    if (option != nullptr && option->takes != Takes::value) {
      LOG_WARN("{}: {} takes no value after a blank, \"{}\" is not used", where, line.name, *line.value);
      line.value.reset();
    }
  }
  set_option(options, line.name, line.value ? line.value->c_str() : nullptr);
}

}  // namespace

void parse_config(Options& options, std::string_view text, const std::string& path) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = std::min(text.find('\n'), text.size());
    if (auto line = parse_line(text.substr(0, end), path, number)) {
      apply(options, std::move(*line), path + " line " + std::to_string(number));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

void load_config(Options& options, const std::string& path) {
  const base::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd) {
    return;
  }
  std::string text;
  char piece[4096];
  for (ssize_t got = 0; (got = ::read(fd.get(), piece, sizeof piece)) > 0;) {
    text.append(piece, static_cast<std::size_t>(got));
  }
  LOG_DEBUG("Parsing config file {}", path);
  parse_config(options, text, path);
}

void load_default_configs(Options& options, bool skip_defaults, const std::string& explicit_file) {
  if (!skip_defaults && explicit_file.empty()) {
    load_config(options, "/etc/criu/default.conf");
    if (const char* home = ::getenv("HOME")) {
      load_config(options, std::string(home) + "/.criu/default.conf");
    } else {
      LOG_INFO("Unable to get $HOME directory, local configuration file will not be used.");
    }
  }
  if (const char* file = ::getenv("CRIU_CONFIG_FILE")) {
    load_config(options, file);
  }
  if (!explicit_file.empty()) {
    load_config(options, explicit_file);
  }
}

}  // namespace criu
