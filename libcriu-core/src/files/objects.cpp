// SPDX-License-Identifier: LGPL-2.1-only
#include "files/objects.hpp"

#include <fcntl.h>

#include "base/error.hpp"
#include "namespaces/user.hpp"
#include "restore_context.hpp"

namespace criu::files {

void prepare(RestoreContext& context) {
  context.objects.pipe_queues = Queues(context, image::type::pipes_data);
  context.objects.fifo_queues = Queues(context, image::type::fifo_data);
  context.objects.locks = Locks(context);
  context.objects.bpf_maps = read_bpf_maps(context.images);
  context.users->run([&] { context.objects.remaps = Remaps(context); });
  context.objects.terminals = Terminals(context);
  if (auto reader = context.images.open(image::type::sk_queues)) {
    context.objects.socket_queues =
        context.internal(base::Fd(base::check(::fcntl(reader->fd(), F_DUPFD_CLOEXEC, 0), "keep open", reader->name())));
  }
  context.objects.socket_names = sockets::Names(context);
  context.objects.tcp = sockets::SavedConnections(context);
  for (const auto& [key, file] : context.checkpoint.files) {
    if (key.first == images::INETSK && file.isk().src_port() != 0) {
      ++context.objects.inet_ports[{file.isk().proto(), file.isk().src_port()}];
    }
  }
}

}  // namespace criu::files
