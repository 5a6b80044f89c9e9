// SPDX-License-Identifier: LGPL-2.1-only
#include "plugins.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <iterator>
#include <memory>
#include <set>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "log.hpp"

namespace criu {

using base::Error;

namespace {

constexpr const char* usual_directory = "/usr/lib/criu";

struct CloseObject {
  void operator()(void* object) const { ::dlclose(object); }
};

struct Plugin {
  std::unique_ptr<void, CloseObject> object;
  std::string name;
  int (*init)(int stage) = nullptr;
  void (*exit)(int stage, int result) = nullptr;
  void* hooks[CR_PLUGIN_HOOK__MAX] = {};
};

// Plugins call plain functions, which have nothing but this to know.
struct State {
  std::vector<Plugin> plugins;
  std::set<std::string, std::less<>> wanted;  // at the restore
  int image_dir = -1;
};

State& state() {
  static State only;
  return only;
}

// From before there were descriptors: each hook is a function of this name.
constexpr const char* old_names[] = {
    "cr_plugin_dump_unix_sk",   "cr_plugin_restore_unix_sk",   "cr_plugin_dump_file",    "cr_plugin_restore_file",
    "cr_plugin_dump_ext_mount", "cr_plugin_restore_ext_mount", "cr_plugin_dump_ext_link"};

void describe_old(Plugin& plugin, const std::string& path) {
  LOG_WARN("plugin {} has no descriptor; it is taken by the names of its functions", path);
  plugin.name = path;
  plugin.init = reinterpret_cast<int (*)(int)>(::dlsym(plugin.object.get(), "cr_plugin_init"));
  plugin.exit = reinterpret_cast<void (*)(int, int)>(::dlsym(plugin.object.get(), "cr_plugin_fini"));
  for (std::size_t hook = 0; hook < std::size(old_names); ++hook) {
    plugin.hooks[hook] = ::dlsym(plugin.object.get(), old_names[hook]);
  }
}

Plugin load(const std::string& path) {
  Plugin plugin;
  plugin.object.reset(::dlopen(path.c_str(), RTLD_LAZY));
  if (plugin.object == nullptr) {
    throw Error("load the plugin", fmt::format("{}: {}", path, ::dlerror()), 0);
  }
  const auto* description = static_cast<const cr_plugin_desc_t*>(::dlsym(plugin.object.get(), "CR_PLUGIN_DESC"));
  if (description == nullptr) {
    describe_old(plugin, path);
    return plugin;
  }
  if (description->version > CRIU_PLUGIN_VERSION || description->max_hooks > CR_PLUGIN_HOOK__MAX ||
      description->name == nullptr) {
    throw Error("Corrupted plugin", path, 0, "it is for a newer version");
  }
  plugin.name = description->name;
  plugin.init = description->init;
  plugin.exit = description->exit;
  std::copy_n(description->hooks, description->max_hooks, plugin.hooks);
  return plugin;
}

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

std::vector<std::string> objects_in(const Options& options) {
  const char* from_environment = ::getenv("CRIU_LIBS_DIR");
  const bool given = !options.libdir.empty() || from_environment != nullptr;
  const std::string where = !options.libdir.empty() ? options.libdir : given ? from_environment : usual_directory;
  std::vector<std::string> paths;
  const std::unique_ptr<DIR, CloseDirectory> directory(::opendir(where.c_str()));
  if (directory == nullptr) {
    if (given || errno != ENOENT) {
      throw Error("open the directory of plugins", where, errno);
    }
    return paths;
  }
  while (const auto* entry = ::readdir(directory.get())) {
    if (std::string_view(entry->d_name).ends_with(".so")) {
      paths.push_back(where + "/" + entry->d_name);
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

template <typename Function, typename... Args>
std::optional<int> ask(int hook, const std::string& what, Args... args) {
  for (const auto& plugin : state().plugins) {
    if (plugin.hooks[hook] == nullptr) {
      continue;
    }
    const int answer = reinterpret_cast<Function>(plugin.hooks[hook])(args...);
    if (answer >= 0) {
      return answer;
    }
    if (answer != -ENOTSUP) {
      throw Error(fmt::format("plugin {}", plugin.name), what, -answer);
    }
  }
  return std::nullopt;
}

void end_all(cr_plugin_stage stage, int result) {
  auto& plugins = state().plugins;
  while (!plugins.empty()) {
    if (plugins.back().exit != nullptr) {
      plugins.back().exit(stage, result);
    }
    plugins.pop_back();
  }
  state() = {};
}

}  // namespace

Plugins::Plugins(const Options& options, cr_plugin_stage stage, int image_dir) : stage_(stage) {
  state().image_dir = image_dir;
  try {
    for (const auto& path : objects_in(options)) {
      auto plugin = load(path);
      LOG_INFO("plugin {} from {}", plugin.name, path);
      if (plugin.init != nullptr && plugin.init(stage) != 0) {
        throw Error("begin", fmt::format("plugin {} does not want to", plugin.name), 0);
      }
      state().plugins.push_back(std::move(plugin));
    }
  } catch (...) {
    end_all(stage, -1);
    throw;
  }
}

Plugins::~Plugins() { end_all(stage_, result_); }

void Plugins::require(const images::inventory_entry& inventory) const {
  for (const auto& name : inventory.plugins_entry().plugins()) {
    const auto& loaded = state().plugins;
    if (std::none_of(loaded.begin(), loaded.end(), [&](const Plugin& plugin) { return plugin.name == name; })) {
      throw Error("Missing required plugin", name, 0, "--libdir names the directory it is in");
    }
  }
}

namespace plugins {

std::optional<int> dump_file(int fd, std::uint32_t id, const std::string& what) {
  return ask<int (*)(int, int)>(CR_PLUGIN_HOOK__DUMP_EXT_FILE, what, fd, static_cast<int>(id));
}

std::optional<int> restore_file(std::uint32_t id, const std::string& what) {
  bool retry = false;
  const auto fd = ask<int (*)(int, bool*)>(CR_PLUGIN_HOOK__RESTORE_EXT_FILE, what, static_cast<int>(id), &retry);
  if (retry) {
    throw Error("not supported by this version", what + ": the plugin wants to be asked again later", 0);
  }
  return fd;
}

void tell(int hook, pid_t pid) { ask<int (*)(int)>(hook, "task " + std::to_string(pid), static_cast<int>(pid)); }

void tell(int hook) { ask<int (*)()>(hook, "all tasks"); }

bool listen_to(int hook) {
  const auto& loaded = state().plugins;
  return std::any_of(loaded.begin(), loaded.end(),
                     [hook](const Plugin& plugin) { return plugin.hooks[hook] != nullptr; });
}

void put(images::inventory_entry& inventory) {
  auto& entry = *inventory.mutable_plugins_entry();
  for (const auto& name : state().wanted) {
    entry.add_plugins(name);
  }
}

}  // namespace plugins

}  // namespace criu

// ---- what plugins call

extern "C" {

__attribute__((visibility("default"), used)) int criu_get_image_dir(void) { return criu::state().image_dir; }

__attribute__((visibility("default"), used)) int add_inventory_plugin(const char* name) {
  criu::state().wanted.insert(name);
  return 0;
}
}
