// SPDX-License-Identifier: LGPL-2.1-only
// Restore, from top to bottom. Everything is read and checked before the first task exists; then the tasks build
// themselves in parallel, stage by stage; a failure of one is the end of all.
#include "restore.hpp"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include "action_scripts.hpp"
#include "base/error.hpp"
#include "files/plan.hpp"
#include "image/directory.hpp"
#include "log.hpp"
#include "memory/restore.hpp"
#include "namespaces/ipc.hpp"
#include "namespaces/restored_cgroups.hpp"
#include "namespaces/restored_home.hpp"
#include "namespaces/steward.hpp"
#include "namespaces/time.hpp"
#include "namespaces/user.hpp"
#include "outside.hpp"
#include "plugins.hpp"
#include "restore_context.hpp"
#include "session.hpp"
#include "sockets/silence.hpp"
#include "stats.hpp"
#include "task/handover.hpp"
#include "task/master.hpp"
#include "task/objects.hpp"
#include "task/rebirth.hpp"

namespace criu {

base::Fd RestoreContext::internal(base::Fd fd) const {
  if (fd.get() >= first_internal_fd) {
    return fd;
  }
  return base::Fd(base::check(::fcntl(fd.get(), F_DUPFD_CLOEXEC, first_internal_fd), "move a descriptor out of the way",
                              {}, "the limit on open files is too low for the descriptors of this tree"));
}

namespace {

// With who does what they may not; none: the tree has no users of its own.
std::unique_ptr<namespaces::Steward> make_users(RestoreContext& context, namespaces::RestoredUsers& users) {
  users.make(context);
  if (!users.own()) {
    return nullptr;
  }
  auto steward = std::make_unique<namespaces::Steward>(context);
  context.images.open_through([steward = steward.get()](const std::string& path) { return steward->open_image(path); });
  return steward;
}

// In the namespaces that have been made for it. Of who bears it inside of its user namespace it is a brother.
pid_t bear_root(const RestoreContext& context, task::Master& master, const namespaces::RestoredHome& home,
                const namespaces::RestoredIpc& ipc) {
  const bool as_sibling = context.options.sibling;
  const auto inside = ipc.enter();
  pid_t root = 0;
  context.users->run(
      [&] {
        const namespaces::RestoredClocks clocks(context.images, context.checkpoint);
        root = master.start(as_sibling || context.users->own(), home.own_pids());
      },
      as_sibling);
  return root;
}

// From the birth of the tree to the moment it runs: where its pids and paths are what they were.
void bring_to_life(RestoreContext& context, task::Master& master, task::Handover& handover,
                   const namespaces::RestoredHome& home, namespaces::RestoredIpc& ipc, sockets::Silence& silence,
                   const Stopwatch& forking) {
  if (home.has_late_mounts()) {
    master.wait_for_others(restorer::Stage::forked);
    home.make_late_mounts();
  }
  master.arrive(restorer::Stage::forked);
  master.wait(restorer::Stage::forked);
  context.shared->forking_time = forking.microseconds();
  plugins::tell(CR_PLUGIN_HOOK__POST_FORKING);

  master.wait(restorer::Stage::rebuilt);
  context.cgroups->place_threads();
  task::schedule_threads(context);
  handover.attach();
  outside::open_gate(restorer::Stage::rebuilt);
  master.wait(restorer::Stage::ready);
  context.shared_objects.seal();  // everything is mapped by now
  ipc.settle();
  context.cgroups->set_properties();
  outside::tell(Event::post_restore);
  handover.stop();
  handover.put_registers();
  context.files.finish(context);
  context.objects.locks.break_leases(context);
  outside::tell(Event::pre_resume);
  for (const auto& task : context.checkpoint.tasks) {
    if (task->alive()) {
      plugins::tell(CR_PLUGIN_HOOK__RESUME_DEVICES_LATE, task->pid());
    }
  }
  context.objects.terminals.hand_over(context);
  context.objects.inherited.let_go();
  outside::ask({outside::Errand::Kind::unlock, 0});
  silence.end();
  handover.release(context.options.final_state == FinalState::stopped);
  context.cgroups->freeze();
}

// In the work directory, which the tree need not see. The tree runs by now, whatever becomes of them.
void write_stats(const namespaces::RestoredHome& home, const Options& options,
                 const images::restore_stats_entry& stats) {
  const namespaces::RestoredHome::Outside outside(home);
  try {
    finish_stats(options, stats);
  } catch (const base::Error& error) {
    LOG_WARN("No statistics: {}", error.what());
  }
}

}  // namespace

pid_t restore(const Options& options) {
  const Stopwatch whole;
  images::restore_stats_entry stats;
  image::Directory images(options.images_dir);
  auto checkpoint = read_checkpoint(images);
  adopt_session(checkpoint, options.shell_job);
  task::Family family(checkpoint);
  RestoreContext context{
      .options = options, .images = std::move(images), .checkpoint = checkpoint, .files = files::Plan(checkpoint)};
  run_scripts(options, Event::pre_restore, {context.images.fd(), 0});
  namespaces::RestoredCgroups cgroups(context);
  context.cgroups = &cgroups;
  namespaces::RestoredUsers users(context);
  context.users = &users;
  task::Master master(context, family);  // the memory shared with the tasks, the gates of the stages
  family.study_memories(context);
  Plugins loaded(options, CR_PLUGIN_STAGE__RESTORE, context.images.fd());
  loaded.require(checkpoint.inventory);
  plugins::tell(CR_PLUGIN_HOOK__RESTORE_INIT);
  context.objects.inherited = files::InheritedFds(context);
  const auto steward = make_users(context, users);
  users.run([&] { context.shared_objects.restore(context); });
  cgroups.make();
  namespaces::RestoredIpc ipc(context);
  namespaces::RestoredHome home(context, ipc);
  context.mounts = home.mounts();
  files::prepare(context);
  sockets::Silence silence(context, home);  // until the tasks run, nobody answers for their connections
  task::Handover handover(checkpoint, family.regions);

  const Stopwatch forking;
  master.expect_us(restorer::Stage::forked);
  const auto root = bear_root(context, master, home, ipc);
  const ScriptContext scripts{context.images.fd(), root};
  const auto announce = [&](Event event) {
    const namespaces::RestoredHome::Outside outside(home);
    if (event == Event::post_restore && home.network() != nullptr) {
      home.network()->connect();
    }
    run_scripts(options, event, scripts);
    if (event == Event::post_restore) {
      write_pidfile(options, root);
    }
  };
  if (home.any()) {
    announce(Event::setup_namespaces);
    announce(Event::post_setup_namespaces);
  }
  home.work_there(
      root, [&] { bring_to_life(context, master, handover, home, ipc, silence, forking); },
      [&](const outside::Request& request) {
        using Kind = outside::Errand::Kind;
        if (request.errand.kind == Kind::event) {
          announce(static_cast<Event>(request.errand.value));
        } else if (request.errand.kind == Kind::unlock) {
          if (home.network() != nullptr) {
            announce(Event::network_unlock);
          }
          const namespaces::RestoredHome::Outside outside(home, CLONE_NEWNET);
          if (home.network() != nullptr) {
            home.network()->arm();
          }
          silence.unlock();
        } else {
          master.open(static_cast<restorer::Stage>(request.errand.value));
        }
        return std::string();
      });
  master.disown();
  cgroups.keep();
  ipc.keep();
  home.keep();
  context.objects.remaps.unlink_links();
  context.objects.socket_names.keep();
  loaded.succeed();
  LOG_INFO("Restore finished successfully. Tasks resumed.");

  master.count(stats);
  stats.set_restore_time(whole.microseconds());
  write_stats(home, options, stats);
  announce(Event::post_resume);
  return root;
}

}  // namespace criu
