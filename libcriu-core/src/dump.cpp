// SPDX-License-Identifier: LGPL-2.1-only
// Dump, from top to bottom. Until the very end the tree can go on as if nothing had happened, and does so on any error.
#include "dump.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "action_scripts.hpp"
#include "files/io_uring.hpp"
#include "log.hpp"
#include "namespaces/cgroups.hpp"
#include "namespaces/freezer.hpp"
#include "namespaces/home.hpp"
#include "namespaces/ipc.hpp"
#include "namespaces/mounts.hpp"
#include "namespaces/net.hpp"
#include "namespaces/net_firewall.hpp"
#include "namespaces/time.hpp"
#include "namespaces/user.hpp"
#include "namespaces/uts.hpp"
#include "options_table.hpp"
#include "outside.hpp"
#include "plugins.hpp"
#include "pre_dump.hpp"
#include "sockets/guard.hpp"
#include "sockets/keepers.hpp"
#include "stats.hpp"
#include "task/dump.hpp"
#include "task/undo.hpp"

namespace criu {

using base::Error;

namespace {

// A directory with an older inventory must not pass for a checkpoint while it is being overwritten.
void unseal(const image::Directory& images) {
  ::unlinkat(images.fd(), image::file_name(image::type::inventory).c_str(), 0);
}

// The inventory comes last: a directory without one is no checkpoint.
void seal(DumpContext& context, const task::Ids& ids, files::Collector& files, image::Outbox& outbox) {
  outbox.flush();
  context.worker.wait();
  images::inventory_entry inventory;
  inventory.set_img_version(2);
  inventory.set_fdinfo_per_id(true);
  inventory.set_ns_per_id(true);
  *inventory.mutable_root_ids() = ids.own();
  inventory.set_root_cg_set(1);
  inventory.set_lsmtype(images::NO_LSM);
  inventory.set_network_lock_method(static_cast<std::uint32_t>(files.lock_method()));
  if (const auto tables = files.lock_tables(); tables != 0) {
    inventory.set_network_lock_tables(tables);
  }
  if (context.options.tcp_close) {
    inventory.set_tcp_close(true);
  }
  plugins::put(inventory);
  inventory.set_dump_criu_run_id(context.run_id);
  image::Writer writer(context.images.fd(), image::file_name(image::type::inventory, 0), image::type::inventory);
  writer.write(inventory);
  writer.finish();
}

// All that is in the way, one a line.
void stop_at_obstacles(const DumpContext& context) {
  if (context.obstacles.empty()) {
    return;
  }
  if (context.obstacles.size() == 1) {
    throw context.obstacles.front();
  }
  std::string all;
  for (const auto& obstacle : context.obstacles) {
    all += fmt::format("\n  {}", obstacle.what());
  }
  throw Error("cannot dump", fmt::format("{} things are in the way:{}", context.obstacles.size(), all), 0);
}

// What an address space is made of, now that the worker has seen its pages.
void save_address_spaces(DumpContext& context, const task::FrozenTree& tree, std::vector<task::SavedTask>& saved,
                         memory::PageStats& stats) {
  for (std::size_t i = 0; i < saved.size(); ++i) {
    const auto& task = tree.tasks()[i];
    if (task.state != TaskState::dead) {
      memory::add_guards(saved[i].pages, saved[i].mm);
      stats += saved[i].pages.stats;
      context.images.put(image::type::mm, static_cast<std::uint64_t>(task.pid), saved[i].mm);
    }
  }
}

// Each with its end.
std::string external_lines(EventListener& listener) {
  std::string lines;
  for (const auto& resource : listener.external()) {
    lines += resource + '\0';
  }
  return lines;
}

// A client of the RPC may know of resources that are not the tree's only now that it stands still.
void ask_for_external(Options& options) {
  if (options.listener != nullptr) {
    std::istringstream lines(outside::ask({outside::Errand::Kind::external, 0}));
    for (std::string line; std::getline(lines, line, '\0');) {
      set_option(options, "external", line.c_str());
    }
  }
}

// Devices are brought to rest while their tasks still run.
void pause_devices(pid_t root) {
  if (!plugins::listen_to(CR_PLUGIN_HOOK__PAUSE_DEVICES)) {
    return;
  }
  std::vector<pid_t> tasks{root};
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    plugins::tell(CR_PLUGIN_HOOK__PAUSE_DEVICES, tasks[i]);
    std::error_code ended;  // meanwhile
    for (const auto& thread : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", tasks[i]), ended)) {
      std::ifstream children(thread.path() / "children");
      for (pid_t child = 0; children >> child;) {
        tasks.push_back(child);
      }
    }
  }
}

}  // namespace

std::string new_run_id() {
  std::ifstream file("/proc/sys/kernel/random/uuid");
  std::string id;
  std::getline(file, id);
  return id;
}

namespace {

// What is done where the tree lives. Returns what it cost.
images::dump_stats_entry dump_tree(Options options, const namespaces::Home& home, image::Directory& images,
                                   namespaces::Cgroups& cgroups, namespaces::Freezer& freezer) {
  DumpContext context{.options = options,
                      .images = images,
                      .cgroups = &cgroups,
                      .mounts = home.own_mounts() ? &home.mount_sources() : nullptr,
                      .users = &home.users()};
  // A tree that goes on need not wait for the disk, unless a script is to see it frozen.
  const bool early =
      options.final_state == FinalState::running && options.action_scripts.empty() && options.listener == nullptr;
  image::Outbox outbox(context.worker, early);
  images.write_through(outbox);
  std::vector<task::SavedTask> saved;
  const Worker::Scope working(context.worker);
  outbox.prepare();
  task::Collected all(context, home);
  pause_devices(options.tree);
  const Stopwatch freezing;
  task::FrozenTree tree(options.tree, options.timeout, freezer);
  const namespaces::Freezer::PutBack put_back(freezer);  // before the tree is let go
  images::dump_stats_entry stats;
  stats.set_freezing_time(freezing.microseconds());
  const Stopwatch frozen;
  ask_for_external(options);
  saved.resize(tree.tasks().size());
  for (const auto& task : tree.tasks()) {
    context.tasks.insert(task.pid);
    if (home.own_mounts() && task.state != TaskState::dead) {
      home.mount_sources().note(procfs::Task(task.pid));
    }
    plugins::tell(CR_PLUGIN_HOOK__CHECKPOINT_DEVICES, task.pid);
  }
  unseal(images);
  cgroups.survey(tree);
  task::save_tree(context, tree);
  if (home.network() >= 0) {
    outside::tell(Event::network_lock);
  }
  namespaces::save_net(context, home);  // before it is locked
  for (std::size_t i = 0; i < saved.size(); ++i) {
    if (i + 1 < saved.size()) {
      task::look_at_areas(context, tree.tasks()[i + 1], saved[i + 1]);
    }
    context.attempt([&] { task::save_task(context, tree, i, all, saved[i]); });
  }
  plugins::tell(CR_PLUGIN_HOOK__DUMP_DEVICES_LATE, options.tree);
  files::save_rings(context, tree, all.files, saved);
  task::save_undo(context, tree, all.ids, saved);
  const procfs::Task root(options.tree);
  context.attempt(
      [&] { namespaces::save_ipc(context, all.files.saver().shared_objects(), root, all.ids.root(), all.ids.own()); });
  all.files.finish();
  stop_at_obstacles(context);  // before the longest part, which the worker has only begun
  context.worker.wait();
  memory::PageStats pages;
  save_address_spaces(context, tree, saved, pages);
  images.put(image::type::seccomp, 0, all.seccomp);
  if (context.mounts != nullptr) {
    namespaces::save_mounts(context);
  }
  cgroups.save(images, freezer.frozen_before());
  namespaces::save_users(context, all.ids.root().user_ns_id());
  namespaces::save_uts(images, all.ids.root(), all.ids.own());
  namespaces::save_clocks(images, root, all.ids.root(), all.ids.own());
  stop_at_obstacles(context);
  if (early) {
    freezer.put_back();
    tree.release(FinalState::running);
    stats.set_frozen_time(frozen.microseconds());
  }
  seal(context, all.ids, all.files, outbox);
  outside::tell(Event::post_dump);
  pages.fill(stats);
  if (const auto scanned = all.files.scan_time(); scanned != 0) {
    stats.set_irmap_resolve(static_cast<std::uint32_t>(scanned));
  }
  if (!early) {
    stats.set_frozen_time(frozen.microseconds());
    outside::part(stats.SerializeAsString());
    auto* keepers = all.files.keepers();
    if (keepers != nullptr) {
      keepers->at_the_end();
    }
    if (options.final_state == FinalState::running && home.network() >= 0) {
      outside::tell(Event::network_unlock);
    }
    if (options.final_state == FinalState::killed) {
      files::quiet_rings(tree, all.files.saver().rings());
      if (home.own_pids()) {
        outside::ask({outside::Errand::Kind::kill_root, 0});  // an init is deaf to that from inside
      }
    } else {
      freezer.put_back();
    }
    tree.release(options.final_state);
    if (keepers != nullptr) {
      keepers->complete();
    }
    stats.set_frozen_time(frozen.microseconds());
  }
  if (options.final_state != FinalState::running) {
    all.files.keep_links();
  }
  return stats;
}

}  // namespace

void dump(const Options& options) {
  check_outside(options);
  image::Directory images(options.images_dir);
  link_parent(options, images);
  const ScriptContext scripts{images.fd(), options.tree};
  run_scripts(options, Event::pre_dump, scripts);
  Plugins loaded(options, CR_PLUGIN_STAGE__DUMP, images.fd());
  const namespaces::Home home(options.tree);
  namespaces::Cgroups cgroups(options, home, options.tree);
  namespaces::Freezer freezer(options.freeze_cgroup);
  std::optional<sockets::Guard> guard(std::in_place, options.tree, home.network());
  bool locked = false;  // as scripts know it
  const auto serve = [&](const outside::Request& request) {
    using Kind = outside::Errand::Kind;
    switch (request.errand.kind) {
      case Kind::connections:
        return guard->serve(request);
      case Kind::read_firewall: {
        const namespaces::InsideNet inside(home.network());
        return namespaces::packed(namespaces::read_firewall());
      }
      case Kind::external:
        return external_lines(*options.listener);
      case Kind::event: {
        const auto event = static_cast<Event>(request.errand.value);
        run_scripts(options, event, scripts);
        locked = event == Event::network_lock || (locked && event != Event::network_unlock);
        break;
      }
      default:
        home.kill_root();
    }
    return std::string();
  };
  std::string result;
  try {
    result = home.visit(
        [&](pid_t root) {
          auto there = options;
          there.tree = root;
          return dump_tree(there, home, images, cgroups, freezer).SerializeAsString();
        },
        serve);
  } catch (...) {
    if (locked) {
      run_scripts(options, Event::network_unlock, scripts);
    }
    throw;
  }
  if (options.final_state == FinalState::killed) {
    home.await_end();
  }
  guard.reset();
  if (options.final_state == FinalState::killed) {
    namespaces::bury_net(home);
  }
  images::dump_stats_entry stats;
  stats.ParseFromString(result);
  finish_stats(options, stats);
  loaded.succeed();
  LOG_INFO("Dumping finished successfully");
}

}  // namespace criu
