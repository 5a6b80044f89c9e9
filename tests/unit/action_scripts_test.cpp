// SPDX-License-Identifier: GPL-2.0-only
#include "action_scripts.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/fd.hpp"
#include "log.hpp"

using namespace criu;

namespace {

// A work directory with scripts in it, and a log of its own.
struct Scene {
  std::string path = "/tmp/criu-unit-XXXXXX";
  Options options;
  base::Fd log_file;
  Scene() {
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    options.work_dir = path;
    log_file = base::Fd(::open((path + "/log").c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600));
    log::open(log_file.get(), log::error);
  }
  ~Scene() {
    log::open(STDERR_FILENO, log::warning);
    std::filesystem::remove_all(path);
  }
  void script(const std::string& name, const std::string& text) {
    std::ofstream(path + "/" + name) << "#!/bin/sh\n" << text << "\n";
    ::chmod((path + "/" + name).c_str(), 0700);
    options.action_scripts.push_back(path + "/" + name);
  }
  std::string read(const std::string& name) const {
    std::ifstream file(path + "/" + name);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }
};

}  // namespace

TEST_CASE("a script runs in the work directory and is told what happens to what") {
  Scene scene;
  scene.script("a",
               "echo $CRTOOLS_SCRIPT_ACTION $CRTOOLS_IMAGE_DIR $CRTOOLS_INIT_PID $# > out; pwd -P > where; echo "
               "spoken; ls /proc/self/fd > fds");
  run_scripts(scene.options, Event::pre_resume, {7, 42});
  CHECK(scene.read("out") == fmt::format("pre-resume /proc/{}/fd/7 42 0\n", ::getpid()));
  CHECK(scene.read("where") == scene.path + "\n");
  CHECK(scene.read("log") == "spoken\n");
  CHECK(::getenv("CRTOOLS_SCRIPT_ACTION") == nullptr);
}

TEST_CASE("nothing is known of a root task that is not there yet") {
  Scene scene;
  scene.script("a", "echo ${CRTOOLS_INIT_PID-none} ${CRTOOLS_IMAGE_DIR-none} > out");
  run_scripts(scene.options, Event::pre_restore, {});
  CHECK(scene.read("out") == "none none\n");
}

TEST_CASE("the last script goes first, and all run though one fails") {
  Scene scene;
  scene.script("a", "echo a >> out");
  scene.script("b", "echo b >> out; exit 3");
  scene.script("c", "echo c >> out");
  CHECK_THROWS_AS(run_scripts(scene.options, Event::post_dump, {}), ScriptFailed);
  CHECK(scene.read("out") == "c\nb\na\n");
  const auto log = scene.read("log");
  CHECK(log.find("exited, status=3\n") != std::string::npos);
  CHECK(log.find("Script " + scene.path + "/b exited with -1\n") != std::string::npos);
  CHECK(log.find("One of more action scripts failed\n") != std::string::npos);
}

TEST_CASE("what cannot be stopped any more is not stopped by a script") {
  Scene scene;
  scene.options.action_scripts = {"/nowhere/at/all"};
  for (const auto event : {Event::network_unlock, Event::pre_resume, Event::post_resume}) {
    CHECK_NOTHROW(run_scripts(scene.options, event, {}));
  }
  CHECK_THROWS_WITH(run_scripts(scene.options, Event::pre_dump, {}), "Pre dump script failed: /nowhere/at/all");
}
