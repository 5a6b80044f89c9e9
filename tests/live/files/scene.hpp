// SPDX-License-Identifier: GPL-2.0-only
// Takes the open files of a stopped process through an image into a fresh process, without anything else of a
// checkpoint. Each test says what is open, and what must hold of it afterwards.
#pragma once

// <signal.h> has a macro by the name of a field of the images.
#undef sigmask

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "dump_context.hpp"
#include "files/collect.hpp"
#include "options.hpp"

namespace scene {

// A failed check inside of a process of the scene; its text reaches the test.
struct Failure {
  std::string text;
};
void require(bool holds, const std::string& text);
#define MUST(...) ::scene::require((__VA_ARGS__), #__VA_ARGS__ " (line " + std::to_string(__LINE__) + ")")

// One process of a scene: what it opens, and what it finds after.
struct Actor {
  std::function<void()> open;
  std::function<void()> check;
};

// A directory that goes away with its contents.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string path(const std::string& name = {}) const { return name.empty() ? path_ : path_ + "/" + name; }
  // The names in it, sorted.
  std::vector<std::string> names(const std::string& below = {}) const;

 private:
  std::string path_;
};

// What /proc shows of the descriptors of a process, without what may change: inode numbers, time.
using Look = std::map<int, std::string>;
Look look(pid_t pid);

class Scene {
 public:
  // The processes run one after another, each a child of the one before, so that it inherits what that one opened.
  explicit Scene(std::vector<Actor> actors);
  ~Scene();

  // Runs the collector over all processes; returns what is in the way.
  std::vector<std::string> dump();
  // The collector of the last dump, until the scene ends or the next dump.
  criu::files::Collector& collector() { return *collector_; }
  // Kills the processes, makes new ones with the saved files, compares what /proc shows, and runs the checks.
  void restore();

  criu::Options options;
  // Descriptors whose flags or path cannot come back as they were.
  std::set<int> looks_different;
  TempDir images;
  const std::vector<pid_t>& pids() const { return pids_; }
  void kill();
  // Called in the master while a restore's context is there, before the first process.
  std::function<void(const criu::RestoreContext&)> prepared;
  // Called when all is restored.
  std::function<void(const criu::RestoreContext&)> restored;

 private:
  std::vector<Actor> actors_;
  std::vector<pid_t> pids_;
  std::vector<Look> looks_;
  std::unique_ptr<criu::image::Directory> directory_;
  std::unique_ptr<criu::DumpContext> context_;
  std::unique_ptr<criu::files::Collector> collector_;
};

}  // namespace scene
