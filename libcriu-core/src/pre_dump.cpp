// SPDX-License-Identifier: LGPL-2.1-only
#include "pre_dump.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <stats.pb.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.hpp"
#include "dump_context.hpp"
#include "files/collect.hpp"
#include "image/scratch.hpp"
#include "kernel/procfs.hpp"
#include "log.hpp"
#include "memory/dump.hpp"
#include "namespaces/freezer.hpp"
#include "namespaces/home.hpp"
#include "plugins.hpp"
#include "stats.hpp"
#include "task/frozen.hpp"

namespace criu {

using base::check;
using base::Error;

namespace {

class MemoryCopy {
 public:
  // `scratch`: for images that a pre-dump has not.
  MemoryCopy(const Options& options, const namespaces::Home& home, const image::Directory& images,
             const image::Directory& scratch)
      : home_(home),
        context_{.options = options, .images = images},
        look_{.options = options,
              .images = scratch,
              .look_only = true,
              .mounts = home.own_mounts() ? &home.mount_sources() : nullptr,
              .users = &home.users()},
        files_(look_) {}

  void copy(const task::FrozenTree& tree) {
    for (std::size_t i = 0; i < tree.tasks().size(); ++i) {
      if (tree.tasks()[i].state != TaskState::dead) {
        look_.attempt([&] { copy_task(tree, i); });
      }
    }
  }

  const memory::PageStats& stats() const { return stats_; }
  const std::vector<Error>& obstacles() const { return look_.obstacles; }

 private:
  void copy_task(const task::FrozenTree& tree, std::size_t index) {
    const auto& task = tree.tasks()[index];
    const procfs::Task proc(task.pid);
    if (home_.own_mounts()) {
      home_.mount_sources().note(proc);
    }
    const auto areas = procfs::parse_smaps(proc.read("smaps"));
    images::mm_entry mm;
    memory::save_areas(look_, files_, proc, areas, mm);
    std::vector<std::uint64_t> stack_pointers;
    for (const auto tid : task.tids) {
      stack_pointers.push_back(tree.registers(index, tid).rsp);
    }
    const auto pages = memory::pages_of(context_, task.pid, areas, mm, std::move(stack_pointers));
    stats_ += memory::save_pages(context_.images, pages, [] { return false; }).stats;
  }

  const namespaces::Home& home_;
  DumpContext context_, look_;
  files::Collector files_;
  memory::PageStats stats_;
};

// No number of a version: it cannot be restored.
void seal(const image::Directory& images) {
  images::inventory_entry inventory;
  inventory.set_img_version(0);
  plugins::put(inventory);
  images.put(image::type::inventory, 0, inventory);
}

images::dump_stats_entry copy_tree(const Options& options, const namespaces::Home& home, const image::Directory& images,
                                   const image::Directory& scratch, namespaces::Freezer& freezer) {
  MemoryCopy memory(options, home, images, scratch);
  const Stopwatch freezing;
  task::FrozenTree tree(options.tree, options.timeout, freezer);
  const namespaces::Freezer::PutBack put_back(freezer);
  images::dump_stats_entry stats;
  stats.set_freezing_time(freezing.microseconds());
  const Stopwatch frozen;
  memory.copy(tree);
  freezer.put_back();
  tree.release(options.final_state == FinalState::stopped ? FinalState::stopped : FinalState::running);
  stats.set_frozen_time(frozen.microseconds());
  seal(images);
  memory.stats().fill(stats);
  for (const auto& obstacle : memory.obstacles()) {
    LOG_WARN("in the way of a dump: {}", obstacle.what());
  }
  return stats;
}

}  // namespace

void check_outside(const Options& options) {
  if (procfs::is_within(::getpid(), options.tree)) {
    throw Error("The criu itself is within dumped tree.", {}, 0,
                "it has to be started from outside of it: setsid -f, for one, leaves a tree");
  }
}

void link_parent(const Options& options, const image::Directory& images) {
  const auto& parent = options.previous_images;
  if (parent.empty()) {
    return;
  }
  const base::Fd directory(check(::openat(images.fd(), parent.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC), "open",
                                 "--prev-images-dir " + parent, "it is looked for from the image directory on"));
  ::unlinkat(images.fd(), "parent", 0);
  check(::symlinkat(parent.c_str(), images.fd(), "parent"), "link the parent images", parent);
}

void pre_dump(const Options& options) {
  check_outside(options);
  const image::Directory images(options.images_dir);
  link_parent(options, images);
  const image::ScratchDirectory nowhere;
  const image::Directory scratch(nowhere.path());
  Plugins loaded(options, CR_PLUGIN_STAGE__PRE_DUMP, images.fd());
  const namespaces::Home home(options.tree);
  namespaces::Freezer freezer(options.freeze_cgroup);
  const auto result = home.visit(
      [&](pid_t root) {
        auto there = options;
        there.tree = root;
        return copy_tree(there, home, images, scratch, freezer).SerializeAsString();
      },
      [](const outside::Request&) { return std::string(); });
  images::dump_stats_entry stats;
  stats.ParseFromString(result);
  finish_stats(options, stats);
  loaded.succeed();
  LOG_INFO("Pre-dumping finished successfully");
}

}  // namespace criu
