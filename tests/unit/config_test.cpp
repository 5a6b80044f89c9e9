// SPDX-License-Identifier: GPL-2.0-only
#include <catch2/catch.hpp>

#include "options_table.hpp"

using namespace criu;
using Catch::Matchers::Contains;

namespace {

Options parsed(std::string_view text) {
  Options options;
  parse_config(options, text, "file");
  return options;
}

const std::string malformed = "Unsupported configuration file format. Please consult man page criu(8)";

}  // namespace

TEST_CASE("a configuration file holds an option a line") {
  const auto options = parsed(
      "shell-job\n\n# all of this is said to nobody\n  tree 7  \nghost-limit\t2M # big\nno-shell-job\nlog-file a");
  CHECK_FALSE(options.shell_job);
  CHECK(options.tree == 7);
  CHECK(options.ghost_limit == 2 << 20);
  CHECK(options.log_file == "a");
}

TEST_CASE("quotes hold blanks, quotes and nothing") {
  CHECK(parsed("action-script \"/tmp/my script.sh\"").action_scripts == std::vector<std::string>{"/tmp/my script.sh"});
  CHECK(parsed(R"(log-file "a\"b")").log_file == "a\"b");
  CHECK(parsed("log-file x\nlog-file \"\"").log_file.empty());
  CHECK(parsed("log-file   \t \"a b\"  # comment").log_file == "a b");
}

TEST_CASE("a file that is not understood names the line") {
  for (const char* text : {"tree 1\nlog-file \"", "tree 1\nlog-file \"a", "tree 1\nlog-file a b",
                           "tree 1\nlog-file \"a\" b", "tree 1\nlog-file \"a # b\""}) {
    INFO(text);
    CHECK_THROWS_WITH(parsed(text), Contains(malformed) && Contains("file line 2"));
  }
}

TEST_CASE("optional values stand behind an equals sign") {
  CHECK(parsed("verbosity=4").verbosity == 4);
  CHECK(parsed("verbosity 4").verbosity == 3);
  CHECK(parsed("verbosity").verbosity == 3);
  CHECK(parsed("ghost-limit=3K").ghost_limit == 3072);
}

TEST_CASE("what a command line would refuse, a file may not say either") {
  CHECK_THROWS_AS(parsed("bogus"), UsageError);
  CHECK_THROWS_AS(parsed("v4"), UsageError);
  CHECK_THROWS_AS(parsed("tree"), UsageError);
  CHECK_THROWS_AS(parsed("shell-job=1"), UsageError);
  CHECK_THROWS_AS(parsed("help"), UsageError);
  CHECK(parsed("stream").not_yet == std::set<std::string>{"stream"});
}

TEST_CASE("a file that is not there says nothing") {
  Options options;
  load_config(options, "/nowhere/at/all");
  load_config(options, "/tmp");
  CHECK(options.not_yet.empty());
}
