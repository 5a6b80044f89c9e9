// SPDX-License-Identifier: LGPL-2.1-only
#include "files/pipe.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include "files/common.hpp"
#include "files/queues.hpp"
#include "files/saver.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// Ends made by pipe() lack O_LARGEFILE; those reopened through /proc have it.
bool reopened(const images::pipe_entry& entry) { return (entry.flags() & 0100000) != 0; }

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  if ((description.info.flags & O_EXCL) != 0) {
    throw Error("not supported by this version",
                description.what() + " is a queue of kernel notifications (O_NOTIFICATION_PIPE)", 0);
  }
  auto& pipe = *entry.mutable_pipe();
  pipe.set_id(entry.id());
  pipe.set_pipe_id(static_cast<std::uint32_t>(description.stat.st_ino));
  pipe.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  if ((pipe.flags() & O_ACCMODE) != O_WRONLY) {
    saver.note_reader(description.stat.st_ino, {description.pid, description.fd});
    save_queue(saver, image::type::pipes_data, description.own, pipe.pipe_id(), description.what());
  }
}

// A pipe that the caller gives: descriptions that it gives are used as they are, others are openings of the same pipe.
std::vector<base::Fd> make_inherited(RestoreContext& context, std::span<const images::file_entry* const> group,
                                     const std::string& key) {
  std::vector<base::Fd> made;
  for (const auto* file : group) {
    const auto mode = static_cast<int>(file->pipe().flags() & O_ACCMODE);
    const int given = context.objects.inherited.find(key, mode);
    made.push_back(given >= 0 ? copy_inherited(given, key)
                              : reopen(context.objects.inherited.find(key),
                                       mode | static_cast<int>(file->pipe().flags() & settable_flags), key));
  }
  // What waited may be in it still; a pipe with nothing inside is another one.
  int waiting = 0;
  check(::ioctl(context.objects.inherited.find(key), FIONREAD, &waiting), "look into", key);
  const auto* queue = context.objects.pipe_queues.find(group.front()->pipe().pipe_id());
  if (waiting == 0 && queue != nullptr) {
    fill_queue(reopen(context.objects.inherited.find(key), O_WRONLY | O_NONBLOCK, key).get(), *queue, key);
  }
  return made;
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto pipe_id = group.front()->pipe().pipe_id();
  const auto what = fmt::format("pipe {}", pipe_id);
  if (const auto key = fmt::format("pipe:[{}]", pipe_id); context.objects.inherited.find(key) >= 0) {
    return make_inherited(context, group, key);
  }
  int numbers[2];
  check(::pipe2(numbers, O_CLOEXEC), "make", what);
  base::Fd ends[2] = {base::Fd(numbers[0]), base::Fd(numbers[1])};
  if (const auto* queue = context.objects.pipe_queues.find(pipe_id)) {
    fill_queue(ends[1].get(), *queue, what);
  }
  std::vector<base::Fd> made(group.size());
  // Reopening first: it needs an end that is still ours.
  bool kept[2] = {false, false};
  std::vector<std::size_t> originals;
  for (std::size_t i = 0; i < group.size(); ++i) {
    const auto& entry = group[i]->pipe();
    const auto mode = entry.flags() & O_ACCMODE;
    if (mode <= O_WRONLY && !reopened(entry) && !kept[mode]) {
      kept[mode] = true;
      originals.push_back(i);
    } else {
      made[i] = reopen(ends[0].get(), static_cast<int>(mode | (entry.flags() & settable_flags)), what);
    }
  }
  for (const auto i : originals) {
    const auto& entry = group[i]->pipe();
    made[i] = std::move(ends[entry.flags() & O_ACCMODE]);
    set_flags(made[i].get(), entry.flags(), what);
  }
  return made;
}

}  // namespace

const Kind pipe_kind = {
    .type = images::PIPE,
    .name = "pipe",
    .recognise =
        [](const Description& d) {
          return S_ISFIFO(d.stat.st_mode) && d.link.starts_with("pipe:") && (d.info.flags & O_PATH) == 0;
        },
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_pipe()->mutable_fown(); },
    .group = [](const Checkpoint&,
                const images::file_entry& entry) { return std::uint64_t{1} << 32 | entry.pipe().pipe_id(); },
    .make = make,
};

}  // namespace criu::files
