// SPDX-License-Identifier: LGPL-2.1-only
// Restore, from top to bottom. Everything is read and checked before the first task exists; then the tasks build
// themselves in parallel, stage by stage; a failure of one is the end of all.
#include "restore.hpp"

#include <fcntl.h>
#include <unistd.h>

#include "base/error.hpp"
#include "files/plan.hpp"
#include "image/directory.hpp"
#include "log.hpp"
#include "memory/restore.hpp"
#include "restore_context.hpp"
#include "task/handover.hpp"
#include "task/master.hpp"
#include "task/rebirth.hpp"

namespace criu {

base::Fd RestoreContext::internal(base::Fd fd) const {
  if (fd.get() >= first_internal_fd) {
    return fd;
  }
  return base::Fd(base::check(::fcntl(fd.get(), F_DUPFD_CLOEXEC, first_internal_fd), "move a descriptor out of the way", {},
                              "the limit on open files is too low for the descriptors of this tree"));
}

pid_t restore(const Options& options) {
  image::Directory images(options.images_dir);
  const auto checkpoint = read_checkpoint(images);
  task::Family family(checkpoint);
  RestoreContext context{.options = options, .images = std::move(images), .checkpoint = checkpoint, .files = files::Plan(checkpoint)};
  task::Master master(context, family);   // the memory shared with the tasks, the gates of the stages
  context.shared_objects.restore(context);
  files::prepare(context);

  const auto root = master.start(options.sibling);
  master.finish(restorer::Stage::forked);
  master.finish(restorer::Stage::grouped);
  master.finish(restorer::Stage::opened);
  master.finish(restorer::Stage::connected);

  task::Handover handover(checkpoint, family.regions);
  master.wait(restorer::Stage::rebuilt);
  handover.attach();
  master.open(restorer::Stage::rebuilt);
  master.wait(restorer::Stage::ready);
  context.shared_objects.seal();  // everything is mapped by now
  handover.stop();
  handover.put_registers();
  handover.release(options.final_state == FinalState::stopped);
  master.disown();
  context.objects.remaps.unlink_links();
  LOG_INFO("Restore finished successfully. Tasks resumed.");
  return root;
}

}  // namespace criu
