// SPDX-License-Identifier: LGPL-2.1-only
// Dump, from top to bottom. Until the very end the tree can go on as if nothing had happened, and does so on any error.
#include "dump.hpp"

#include <fmt/format.h>
#include <timens.pb.h>
#include <unistd.h>

#include <chrono>
#include <ctime>

#include "log.hpp"
#include "task/dump.hpp"

namespace criu {

using base::Error;

namespace {

// A directory with an older inventory must not pass for a checkpoint while it is being overwritten.
void unseal(const image::Directory& images) { ::unlinkat(images.fd(), image::file_name(image::type::inventory).c_str(), 0); }

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

void save_clocks(const DumpContext& context) {
  images::timens_entry entry;
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  entry.mutable_monotonic()->set_tv_sec(static_cast<std::uint64_t>(now.tv_sec));
  entry.mutable_monotonic()->set_tv_nsec(static_cast<std::uint64_t>(now.tv_nsec));
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  entry.mutable_boottime()->set_tv_sec(static_cast<std::uint64_t>(now.tv_sec));
  entry.mutable_boottime()->set_tv_nsec(static_cast<std::uint64_t>(now.tv_nsec));
  context.images.put(image::type::timens, 0, entry);
}

// All that is in the way, one a line.
void stop_at_obstacles(const DumpContext& context) {
  if (context.obstacles.empty()) {
    return;
  }
  for (const auto& obstacle : context.obstacles) {
    LOG_ERROR("{}", obstacle.what());
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

}  // namespace

void dump(const Options& options) {
  const image::Directory images(options.images_dir);
  DumpContext context{options, images, {}};
  unseal(images);
  task::FrozenTree tree(options.tree, options.timeout);
  task::Collected all(context);

  task::save_tree(context, tree);
  std::vector<task::SavedTask> saved(tree.tasks().size());
  for (std::size_t i = 0; i < saved.size(); ++i) {
    context.attempt([&] { saved[i] = task::save_task(context, tree, i, all); });
  }
  stop_at_obstacles(context);  // before the long part

  for (std::size_t i = 0; i < saved.size(); ++i) {
    const auto& frozen = tree.tasks()[i];
    if (frozen.state == TaskState::dead) {
      continue;
    }
    memory::save_pages(context, procfs::Task(frozen.pid), static_cast<std::uint64_t>(frozen.pid), saved[i].stack_pointers, saved[i].mm, all.pages);
    images.put(image::type::mm, static_cast<std::uint64_t>(frozen.pid), saved[i].mm);
  }
  all.files.finish();
  images.put(image::type::seccomp, 0, all.seccomp);
  save_clocks(context);
  stop_at_obstacles(context);
  seal(context, all.ids);
  tree.release(options.final_state);
  if (options.final_state != FinalState::running) {
    all.files.keep_links();
  }
  LOG_INFO("Dumping finished successfully");
}

}  // namespace criu
