// SPDX-License-Identifier: LGPL-2.1-only
#include "files/posix_mq.hpp"

#include <sys/vfs.h>

#include "base/error.hpp"
#include "files/saver.hpp"

namespace criu::files {

namespace {

constexpr unsigned long mqueue_magic = 0x19800202;
constexpr off_t size_of_queue_file = 80;  // whatever is in the queue

// They look like files "/NAME" of no mount that a task has; so that not every file is asked for its filesystem, the
// size is looked at first.
bool recognise(const Description& description) {
  struct statfs fs {};
  return S_ISREG(description.stat.st_mode) && description.stat.st_size == size_of_queue_file &&
         ::fstatfs(description.own, &fs) == 0 && static_cast<unsigned long>(fs.f_type) == mqueue_magic;
}

void save(Saver&, const Description& description, images::file_entry&) {
  throw base::Error("not supported by this version", description.what() + " is a POSIX message queue", 0,
                    "its messages cannot be looked at without taking them out");
}

}  // namespace

const Kind posix_mq_kind = {
    .type = images::UND,
    .name = "POSIX message queue",
    .recognise = recognise,
    .save = save,
};

}  // namespace criu::files
