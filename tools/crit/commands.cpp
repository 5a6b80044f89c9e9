// SPDX-License-Identifier: GPL-2.0-only
#include "commands.hpp"

#include <getopt.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "codec.hpp"
#include "diff.hpp"
#include "explore.hpp"
#include "report.hpp"

namespace crit {

namespace {

constexpr int wrong_usage = 2;

constexpr const char* usage = "usage: crit [-h] [--version] {decode,encode,info,show,x,report,diff} ...\n";

struct Arguments {
  std::string in = "-";
  std::string out = "-";
  bool pretty = false;
  bool no_payload = false;
  std::vector<std::string> words;
};

struct Command {
  const char* name;
  const char* synopsis;
  const char* help;
  const char* options;  // which of these: i, o, p (--pretty), n (--nopl)
  std::size_t words;
  int (*run)(const Arguments&);
};

int finish_text(Output& out) {
  if (out.is_stdout()) {
    out.put('\n');
  }
  out.finish();
  return 0;
}

int run_decode(const Arguments& arguments) {
  Source in(arguments.in);
  Output out(arguments.out);
  decode(in, out, {arguments.pretty, true});
  return finish_text(out);
}

int run_encode(const Arguments& arguments) {
  Source in(arguments.in);
  Output out(arguments.out);
  encode(in, out);
  out.finish();
  return 0;
}

int run_info(const Arguments& arguments) {
  Source in(arguments.words[0]);
  const auto found = info(in);
  Output out("-");
  JsonWriter(out, true).value({{"magic", found.kind->name}, {"count", found.count}});
  return finish_text(out);
}

int run_show(const Arguments& arguments) {
  Source in(arguments.words[0]);
  Output out("-");
  decode(in, out, {true, !arguments.no_payload});
  return finish_text(out);
}

int run_explore(const Arguments& arguments) {
  Output out("-");
  if (!explore(Checkpoint(arguments.words[0]), arguments.words[1], out)) {
    std::fprintf(stderr,
                 "usage: crit x [-h] DIR {ps,fds,mems,rss}\ncrit x: error: argument WHAT: invalid choice: '%s'\n",
                 arguments.words[1].c_str());
    return wrong_usage;
  }
  out.finish();
  return 0;
}

int run_report(const Arguments& arguments) {
  const Checkpoint checkpoint(arguments.words[0]);
  Output out(arguments.out);
  report(checkpoint, out);
  out.finish();
  return 0;
}

// As diff(1): 0 the same, 1 not, 2 trouble.
int run_diff(const Arguments& arguments) {
  constexpr int trouble = 2;
  try {
    Output out("-");
    const bool any = diff(Checkpoint(arguments.words[0]), Checkpoint(arguments.words[1]), out);
    out.finish();
    return any ? 1 : 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "crit: %s\n", error.what());
    return trouble;
  }
}

constexpr Command commands[] = {
    {"decode", "[-i FILE] [-o FILE] [--pretty]", "an image as JSON", "iop", 0, run_decode},
    {"encode", "[-i FILE] [-o FILE]", "JSON as an image", "io", 0, run_encode},
    {"info", "FILE", "the kind of an image, and how many entries it has", "", 1, run_info},
    {"show", "[--nopl] FILE", "an image as pretty JSON", "n", 1, run_show},
    {"x", "DIR {ps,fds,mems,rss}", "tasks, descriptors, memory areas or saved pages of a checkpoint", "", 2,
     run_explore},
    {"report", "[-o FILE] DIR", "a checkpoint as a page for a browser: tree, memory, descriptors, sizes, timings", "o",
     1, run_report},
    {"diff", "DIR DIR", "what differs between two checkpoints; exits with 1 if anything does", "", 2, run_diff},
};

void print_usage(std::FILE* to, const Command& command) {
  std::fprintf(to, "usage: crit %s [-h] %s\n", command.name, command.synopsis);
}

int complain(const Command& command, const std::string& why) {
  print_usage(stderr, command);
  std::fprintf(stderr, "crit %s: error: %s\n", command.name, why.c_str());
  return wrong_usage;
}

int help(const Command& command) {
  print_usage(stdout, command);
  std::printf("\n%s\n\noptions:\n  -h, --help           show this help\n", command.help);
  const auto has = [&command](char option) { return std::strchr(command.options, option) != nullptr; };
  if (has('i')) {
    std::printf("  -i FILE, --in FILE   read this instead of standard input\n");
  }
  if (has('o')) {
    std::printf("  -o FILE, --out FILE  write this instead of standard output\n");
  }
  if (has('p')) {
    std::printf("  --pretty             for people: indented, flags and addresses by name\n");
  }
  if (has('n')) {
    std::printf("  --nopl               tell the sizes of raw bytes instead of showing them\n");
  }
  return 0;
}

int run_command(const Command& command, int argc, char** argv) {
  const ::option long_options[] = {{"help", no_argument, nullptr, 'h'},      {"in", required_argument, nullptr, 'i'},
                                   {"out", required_argument, nullptr, 'o'}, {"pretty", no_argument, nullptr, 'p'},
                                   {"nopl", no_argument, nullptr, 'n'},      {}};
  Arguments arguments;
  opterr = 0;
  optind = 1;
  for (int got = 0; (got = ::getopt_long(argc, argv, ":hi:o:", long_options, nullptr)) != -1;) {
    if (got == 'h') {
      return help(command);
    }
    if (got == '?' || got == ':' || std::strchr(command.options, got) == nullptr) {
      const std::string given = argv[optind - 1];
      return complain(
          command, got == ':' ? "argument " + given + ": expected one argument" : "unrecognized arguments: " + given);
    }
    if (got == 'p' || got == 'n') {
      (got == 'p' ? arguments.pretty : arguments.no_payload) = true;
    } else {
      (got == 'i' ? arguments.in : arguments.out) = optarg;
    }
  }
  arguments.words.assign(argv + optind, argv + argc);
  if (arguments.words.size() != command.words) {
    return complain(command, arguments.words.size() < command.words
                                 ? "the following arguments are required: " + std::string(command.synopsis)
                                 : "unrecognized arguments: " + arguments.words.back());
  }
  return command.run(arguments);
}

}  // namespace

int run(int argc, char** argv) {
  const std::string_view word = argc > 1 ? argv[1] : "";
  if (word == "-h" || word == "--help") {
    std::fputs(usage, stdout);
    std::printf("\nLooks into the images of a checkpoint.\n\n");
    for (const auto& command : commands) {
      std::printf("  %-7s %-32s %s\n", command.name, command.synopsis, command.help);
    }
    return 0;
  }
  if (word == "--version") {
    std::printf("%s\n", CRIT_VERSION);
    return 0;
  }
  if (word.empty()) {
    std::fputs(usage, stderr);
    std::fprintf(stderr, "crit: error: too few arguments\n");
    return 1;
  }
  for (const auto& command : commands) {
    if (word == command.name) {
      return run_command(command, argc - 1, argv + 1);
    }
  }
  std::fputs(usage, stderr);
  std::fprintf(stderr, "crit: error: argument command: invalid choice: '%s'\n", argv[1]);
  return wrong_usage;
}

}  // namespace crit
