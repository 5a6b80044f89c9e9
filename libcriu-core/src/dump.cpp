// SPDX-License-Identifier: LGPL-2.1-only
// Dump, from top to bottom. Until the very end the tree can go on as if nothing had happened, and does so on any error.
#include "dump.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "action_scripts.hpp"
#include "log.hpp"
#include "namespaces/time.hpp"
#include "stats.hpp"
#include "task/dump.hpp"

namespace criu {

using base::Error;

namespace {

// A directory with an older inventory must not pass for a checkpoint while it is being overwritten.
void unseal(const image::Directory& images) {
  ::unlinkat(images.fd(), image::file_name(image::type::inventory).c_str(), 0);
}

// The inventory comes last: a directory without one is no checkpoint.
void seal(const DumpContext& context, const task::Ids& ids) {
  images::inventory_entry inventory;
  inventory.set_img_version(2);
  inventory.set_fdinfo_per_id(true);
  inventory.set_ns_per_id(true);
  *inventory.mutable_root_ids() = ids.own();
  inventory.set_root_cg_set(1);
  inventory.set_lsmtype(images::NO_LSM);
  inventory.set_network_lock_method(0);
  inventory.mutable_plugins_entry();
  context.images.put(image::type::inventory, 0, inventory);
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

void save_memory(DumpContext& context, const task::FrozenTree& tree, std::vector<task::SavedTask>& saved,
                 memory::PageStats& stats) {
  for (std::size_t i = 0; i < saved.size(); ++i) {
    const auto& task = tree.tasks()[i];
    if (task.state != TaskState::dead) {
      const auto number = static_cast<std::uint64_t>(task.pid);
      memory::save_pages(context, procfs::Task(task.pid), number, saved[i].stack_pointers, saved[i].mm, stats);
      context.images.put(image::type::mm, number, saved[i].mm);
    }
  }
}

}  // namespace

void dump(const Options& options) {
  const image::Directory images(options.images_dir);
  DumpContext context{.options = options, .images = images, .obstacles = {}};
  run_scripts(options, Event::pre_dump, {images.fd(), options.tree});
  const Stopwatch freezing;
  task::FrozenTree tree(options.tree, options.timeout);
  images::dump_stats_entry stats;
  stats.set_freezing_time(freezing.microseconds());
  const Stopwatch frozen;
  unseal(images);
  task::Collected all(context);

  task::save_tree(context, tree);
  std::vector<task::SavedTask> saved(tree.tasks().size());
  for (std::size_t i = 0; i < saved.size(); ++i) {
    context.attempt([&] { saved[i] = task::save_task(context, tree, i, all); });
  }
  all.files.finish();
  stop_at_obstacles(context);  // before the long part
  save_memory(context, tree, saved, all.pages);
  images.put(image::type::seccomp, 0, all.seccomp);
  const procfs::Task root(options.tree);
  namespaces::save_clocks(images, root, all.ids.of(options.tree, root), all.ids.own());
  stop_at_obstacles(context);
  seal(context, all.ids);
  run_scripts(options, Event::post_dump, {images.fd(), options.tree});

  tree.release(options.final_state);
  if (options.final_state != FinalState::running) {
    all.files.keep_links();
  }
  stats.set_frozen_time(frozen.microseconds());
  all.pages.fill(stats);
  finish_stats(options, stats);
  LOG_INFO("Dumping finished successfully");
}

}  // namespace criu
