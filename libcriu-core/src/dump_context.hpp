// SPDX-License-Identifier: LGPL-2.1-only
// What all parts of one dump share.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/error.hpp"
#include "image/directory.hpp"
#include "memory/sysv.hpp"
#include "namespaces/user.hpp"
#include "options.hpp"
#include "worker.hpp"

namespace criu {

namespace namespaces {
class Cgroups;
struct MountSources;
}  // namespace namespaces

// A random UUID.
std::string new_run_id();

struct DumpContext {
  const Options& options;
  const image::Directory& images;
  // Only to find out what is in the way: contents are not copied, and nothing outside the image directory is touched.
  bool look_only = false;
  // The network namespace of the tree, as the images number it.
  std::uint32_t net_ns_id = 0;
  // Sessions of the tree's tasks that have a controlling terminal, and the same by the terminal's number.
  struct Control {
    std::uint32_t terminal;
    pid_t foreground;  // -1: nobody
    bool led_from_inside;
  };
  std::map<pid_t, Control> controls;
  std::multimap<std::uint32_t, pid_t> controlling;
  void note_control(pid_t task, pid_t session, std::uint32_t terminal, pid_t foreground) {
    const auto [control, fresh] = controls.try_emplace(session, Control{terminal, foreground, false});
    control->second.led_from_inside |= task == session;
    if (fresh) {
      controlling.emplace(terminal, session);
    }
  }
  const namespaces::Cgroups* cgroups = nullptr;
  const namespaces::MountSources* mounts = nullptr;           // of a tree that has them for itself
  const namespaces::Users* users = &namespaces::our_users();  // which user here is which to the tree
  // Of this dump; names what outlives it.
  std::string run_id = new_run_id();
  // For what needs no ptrace.
  Worker worker;
  // Everything found to be in the way: told to the user at once, not one a run.
  std::vector<base::Error> obstacles;
  // Numbers of pages files: one for each address space or shared object.
  std::uint32_t last_pages_id = 0;
  std::uint32_t new_pages_id() { return ++last_pages_id; }
  // All namespaces that tasks of the tree live in, by what their links say ("net:[4026531840]").
  const std::map<std::string, std::uint32_t>* namespaces = nullptr;
  // The tasks of the tree, zombies included.
  std::unordered_set<pid_t> tasks;

  // System V shared memory that tasks of the tree have attached.
  memory::SeenSegments segments;

  // Runs a step for one object; its Error is kept and the others get their turn.
  template <typename Step>
  void attempt(Step step) {
    try {
      step();
    } catch (const base::Error& error) {
      obstacles.push_back(error);
    }
  }
};

}  // namespace criu
