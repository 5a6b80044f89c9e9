// SPDX-License-Identifier: LGPL-2.1-only
#include "files/objects.hpp"

#include "restore_context.hpp"

namespace criu::files {

void prepare(RestoreContext& context) {
  context.objects.pipe_queues = Queues(context, image::type::pipes_data);
  context.objects.fifo_queues = Queues(context, image::type::fifo_data);
  context.objects.remaps = Remaps(context);
}

}  // namespace criu::files
