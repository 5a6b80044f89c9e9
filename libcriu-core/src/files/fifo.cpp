// SPDX-License-Identifier: LGPL-2.1-only
#include "files/fifo.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include "files/common.hpp"
#include "files/owner.hpp"
#include "files/regular.hpp"
#include "files/saver.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;

namespace {

// Path, flags and owner are in an entry of their own; what is here is the pipe behind them.
void save(Saver& saver, const Description& description, images::file_entry& entry) {
  auto& fifo = *entry.mutable_fifo();
  fifo.set_id(entry.id());
  fifo.set_pipe_id(static_cast<std::uint32_t>(description.stat.st_ino));
  images::file_entry path;
  path.set_type(images::REG);
  path.set_id(saver.new_file_id());
  save_owner(saver.dump(), description.own, *path.mutable_reg()->mutable_fown());
  save_path(saver, description, path);
  saver.put(path);
  fifo.set_regf_id(path.id());
  if ((description.info.flags & O_ACCMODE) != O_WRONLY) {
    save_queue(saver, image::type::fifo_data, description.own, fifo.pipe_id(), description.what());
  }
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto& first = group.front()->fifo();
  const auto what = fmt::format("FIFO {}", first.pipe_id());
  std::vector<base::Fd> made;
  base::Fd both;
  for (const auto* entry : group) {
    const auto id = entry->fifo().has_regf_id() ? entry->fifo().regf_id() : entry->id();
    const auto& path = context.checkpoint.file(images::REG, id, what).reg();
    if (!both) {
      // With both ends at hand no opening waits for the other one, and what is written finds a reader.
      both = open_path(context, id, O_RDWR | O_NONBLOCK, what);
      int waiting = 0;
      check(::ioctl(both.get(), FIONREAD, &waiting), "look into", what);
      const auto* queue = context.objects.fifo_queues.find(first.pipe_id());
      if (waiting == 0 && queue != nullptr) {
        fill_queue(both.get(), *queue, what);
      }
    }
    made.push_back(open_path(context, id, static_cast<int>(path.flags()), what));
    restore_owner(made.back().get(), path.fown());
  }
  return made;
}

}  // namespace

const Kind fifo_kind = {
    .type = images::FIFO,
    .name = "FIFO",
    .recognise =
        [](const Description& d) {
          return S_ISFIFO(d.stat.st_mode) && d.link.starts_with('/') && (d.info.flags & O_PATH) == 0;
        },
    .save = save,
    .group = [](const Checkpoint&,
                const images::file_entry& entry) { return std::uint64_t{1} << 32 | entry.fifo().pipe_id(); },
    .make = make,
};

}  // namespace criu::files
