// SPDX-License-Identifier: LGPL-2.1-only
// Shared objects of the user that save and restore what this suite does not know (include/criu/criu-plugin.h). As their
// interface is one of plain functions, there is one set of them in a process at a time.
#pragma once

#include <criu/criu-plugin.h>
#include <inventory.pb.h>

#include <optional>
#include <string>

#include "options.hpp"

namespace criu {

class Plugins {
 public:
  // Loads what is in the plugin directory. One that cannot be loaded or does not want to begin is an Error.
  Plugins(const Options&, cr_plugin_stage stage, int image_dir);
  // Tells them how it went: badly, unless succeed() was called.
  ~Plugins();
  Plugins(const Plugins&) = delete;
  Plugins& operator=(const Plugins&) = delete;
  void succeed() { result_ = 0; }

  // Restore: makes sure that those that the dump had called for are there.
  void require(const images::inventory_entry&) const;

 private:
  cr_plugin_stage stage_;
  int result_ = -1;
};

namespace plugins {

// The first answer of a plugin that has this hook and knows the object; nothing: none has. A failure is an Error.
std::optional<int> dump_file(int fd, std::uint32_t id, const std::string& what);
std::optional<int> restore_file(std::uint32_t id, const std::string& what);
// Those about a task, or about the whole: who has such a hook is asked, if it is anybody.
void tell(int hook, pid_t pid);
void tell(int hook);
// Whether anybody has this hook.
bool listen_to(int hook);

// Those that called for being there at the restore.
void put(images::inventory_entry&);

}  // namespace plugins

}  // namespace criu
