// SPDX-License-Identifier: GPL-2.0-only
#include "log.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "base/fd.hpp"
#include "session.hpp"

using namespace criu;
using std::chrono::microseconds;

namespace {

// What comes out of the log while it lives; the log is as it was afterwards.
class Captured {
 public:
  explicit Captured(int level) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    reader_ = base::Fd(ends[0]);
    writer_ = base::Fd(ends[1]);
    log::open(writer_.get(), level);
  }
  ~Captured() { log::open(STDERR_FILENO, log::warning); }
  std::string text() {
    log::open(STDERR_FILENO, log::warning);
    writer_.reset();
    std::string all(65536, '\0');
    const auto got = ::read(reader_.get(), all.data(), all.size());
    all.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return all;
  }

 private:
  base::Fd reader_, writer_;
};

}  // namespace

TEST_CASE("a line of the log") {
  using log::format_line;
  CHECK(format_line(log::error, 2, {}, "a.cpp", 7, "text") == "Error (a.cpp:7): text\n");
  CHECK(format_line(log::warning, 2, {}, "a.cpp", 7, "text") == "Warn  (a.cpp:7): text\n");
  CHECK(format_line(log::info, 3, {microseconds(1234567)}, "a.cpp", 7, "text") == "(01.234567) text\n");
  CHECK(format_line(log::error, 4, {microseconds(5), 42}, "a.cpp", 7, "x") ==
        "(00.000005)     42: Error (a.cpp:7): x\n");
}

TEST_CASE("a time is always twelve characters") {
  const auto stamp = [](long us) { return log::format_line(log::info, 3, {microseconds(us)}, "", 0, ""); };
  CHECK(stamp(0) == "(00.000000) \n");
  CHECK(stamp(99999999) == "(99.999999) \n");
  CHECK(stamp(100000009) == "(100.00000) \n");
  CHECK(stamp(1234567890) == "(1234.5678) \n");
}

TEST_CASE("the level decides before anything is formatted") {
  Captured captured(log::warning);
  int formatted = 0;
  LOG_INFO("{}", ++formatted);
  LOG_DEBUG("{}", ++formatted);
  CHECK(formatted == 0);
  LOG_WARN("{}", ++formatted);
  CHECK(formatted == 1);
  CHECK(captured.text().ends_with("1\n"));
}

TEST_CASE("what is said before the log opens comes first in it, filtered by its level") {
  log::hold();
  LOG_INFO("one");
  LOG_DEBUG("two");
  Captured captured(log::info);
  LOG_INFO("three");
  const auto text = captured.text();
  CHECK(text.starts_with("(00.000000) one\n("));
  CHECK(text.ends_with(") three\n"));
  CHECK(text.find("two") == std::string::npos);
}

TEST_CASE("a listener hears every line of the level") {
  Captured captured(log::warning);
  std::vector<std::pair<int, std::string>> heard;
  log::listen(
      [](int level, const char* line, void* to) { static_cast<decltype(heard)*>(to)->emplace_back(level, line); },
      &heard);
  LOG_ERROR("a {}", 1);
  LOG_INFO("b");
  log::listen(nullptr, nullptr);
  LOG_ERROR("c");
  CHECK(heard == decltype(heard){{1, "a 1"}});
}

TEST_CASE("a restored task names itself, or has a log of its own") {
  std::string path = "/tmp/criu-unit-XXXXXX";
  REQUIRE(::mkdtemp(path.data()) != nullptr);
  Options options;
  options.log_file = path + "/log";
  {
    Captured captured(log::warning);
    log_as_task(options, 42);
    LOG_ERROR("here");
    CHECK(captured.text().starts_with("    42: Error ("));
    log::speak_as(0);
  }
  {
    Captured captured(log::warning);
    options.log_pid = true;
    log_as_task(options, 42);
    LOG_ERROR("there");
    CHECK(captured.text().empty());
  }
  std::string line;
  std::ifstream file(path + "/log.42");
  CHECK(std::getline(file, line));
  CHECK(line.ends_with(": there"));
  std::filesystem::remove_all(path);
}
