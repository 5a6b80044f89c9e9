// SPDX-License-Identifier: GPL-2.0-only
// What CRIU 4.2 wrote, crit shows as CRIU's own tool does, letter by letter, and writes again to the same bytes.
#include <fcntl.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "base/error.hpp"
#include "codec.hpp"
#include "display.hpp"
#include "samples.hpp"
#include "schema.hpp"

namespace fs = std::filesystem;

namespace {

// Outputs of other programs and memory, which the format carries as they are.
bool is_raw(const std::string& name) {
  static const std::regex raw(
      "pages-[0-9]+\\.img|(ifaddr|route|route6|rule|iptables|ip6tables|nftables|netns-ct|netns-exp)-[0-9]+\\.img|"
      "tmpfs(-dev)?-[0-9]+\\.tar\\.gz\\.img");
  return std::regex_match(name, raw);
}

void decode(const fs::path& from, const fs::path& to, bool pretty) {
  crit::Source in(from);
  crit::Output out(to);
  crit::decode(in, out, {pretty, true});
  out.finish();
}

void encode(const fs::path& from, const fs::path& to) {
  crit::Source in(from);
  crit::Output out(to);
  crit::encode(in, out);
  out.finish();
}

// The first lines that differ; empty when there are none.
std::string difference(const std::string& ours, const std::string& theirs) {
  std::istringstream a(ours);
  std::istringstream b(theirs);
  std::string one;
  std::string other;
  for (int line = 1;; ++line) {
    const bool there = static_cast<bool>(std::getline(a, one));
    if (there != static_cast<bool>(std::getline(b, other))) {
      return "line " + std::to_string(line) + ": one ends";
    }
    if (!there) {
      return {};
    }
    if (one != other) {
      return std::string("line ")
          .append(std::to_string(line))
          .append(": ours ")
          .append(one)
          .append(", theirs ")
          .append(other);
    }
  }
}

}  // namespace

TEST_CASE("images look as CRIU's crit shows them") {
  const auto name = GENERATE(from_range(interop::sample_names));
  const interop::Sample sample(name);
  unsigned compared = 0;
  for (const auto& view : fs::directory_iterator(sample.json())) {
    const auto image = view.path().stem();
    INFO(name << "/" << image.string());
    const auto ours = sample.scratch() / "view";
    REQUIRE_NOTHROW(decode(sample.images() / image, ours, true));
    CHECK_THAT(difference(interop::read_file(ours) + "\n", interop::read_file(view.path())), Catch::Equals(""));
    ++compared;
  }
  CHECK(compared >= 10);
}

TEST_CASE("images come back to the same bytes") {
  const auto name = GENERATE(from_range(interop::sample_names));
  const bool pretty = GENERATE(false, true);
  const interop::Sample sample(name);
  unsigned decoded = 0;
  for (const auto& file : sample.files()) {
    INFO(name << "/" << file.filename().string() << (pretty ? " pretty" : ""));
    if (is_raw(file.filename())) {
      CHECK_THROWS_AS(decode(file, sample.scratch() / "view", pretty), base::Error);
      continue;
    }
    REQUIRE_NOTHROW(decode(file, sample.scratch() / "view", pretty));
    REQUIRE_NOTHROW(encode(sample.scratch() / "view", sample.scratch() / "again"));
    // Not compared inside the macro: a large file would be printed in full.
    const bool same = interop::read_file(file) == interop::read_file(sample.scratch() / "again");
    CHECK(same);
    ++decoded;
  }
  CHECK(decoded >= 10);
}

TEST_CASE("the schemas are those of CRIU 4.2, and pretty output spells the same fields") {
  std::ifstream table(interop::shared_directory() / "spec" / "image-fields.tsv");
  const auto& displays = crit::displayed_fields();
  std::set<std::string> seen;
  for (std::string line; std::getline(table, line);) {
    std::vector<std::string> columns;
    std::istringstream split(line);
    for (std::string column; std::getline(split, column, '\t');) {
      columns.push_back(column);
    }
    columns.resize(8);
    if (line.starts_with('#') || columns[0] == "opts.proto" || columns[0] == "rpc.proto") {
      continue;
    }
    const auto field = columns[1] + "." + columns[5];
    INFO(field);
    const auto* descriptor = crit::Schema::get().pool().FindFieldByName("criu.images." + field);
    REQUIRE(descriptor != nullptr);
    CHECK(std::to_string(descriptor->number()) == columns[2]);
    const auto found = displays.find(field);
    const auto hint = columns[7];
    CHECK((found == displays.end()) == hint.empty());
    if (found != displays.end()) {
      static const std::map<std::string, crit::Display::Style> styles{
          {"hex", crit::Display::hex},        {"ipadd", crit::Display::address},
          {"dev", crit::Display::device},     {"dev,odev", crit::Display::libc_device},
          {"flags", crit::Display::flags},    {"dict", crit::Display::dictionary},
          {"conv", crit::Display::unix_name},
      };
      CHECK(found->second.style == styles.at(hint.substr(0, hint.find('='))));
      seen.insert(field);
    }
  }
  CHECK(seen.size() == displays.size());
}
