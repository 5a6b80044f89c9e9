// SPDX-License-Identifier: LGPL-2.1-only
// Files of which only a plugin knows what to save: devices, and whatever else is of no kind of the table.
#include "files/plugin_file.hpp"

#include "files/common.hpp"
#include "files/saver.hpp"
#include "files/unsupported.hpp"
#include "plugins.hpp"

namespace criu::files {

using base::Error;

namespace {

bool recognise(const Description& description) {
  if (!plugins::listen_to(CR_PLUGIN_HOOK__DUMP_EXT_FILE)) {
    return false;
  }
  constexpr unsigned memory_devices = 1;
  const auto& stat = description.stat;
  const bool device = S_ISCHR(stat.st_mode) || S_ISBLK(stat.st_mode);
  return device ? (description.info.flags & O_PATH) == 0 && gnu_dev_major(stat.st_rdev) != memory_devices
                : !description.link.starts_with('/');
}

void save(Saver&, const Description& description, images::file_entry& entry) {
  entry.mutable_ext()->set_id(entry.id());
  if (!plugins::dump_file(description.own, entry.id(), description.what())) {
    throw Error("not supported by this version",
                fmt::format("{} is {}, and no plugin knows it", description.what(), name_unsupported(description)), 0);
  }
}

std::vector<base::Fd> make(RestoreContext&, std::span<const images::file_entry* const> group) {
  const auto what = fmt::format("a plugin's file (file {})", group.front()->id());
  const auto fd = plugins::restore_file(group.front()->id(), what);
  if (!fd) {
    throw Error("cannot restore", what + ": no plugin knows it", 0, "--libdir names the directory of plugins");
  }
  return one(base::Fd(*fd));
}

}  // namespace

const Kind plugin_kind = {
    .type = images::EXT,
    .name = "a plugin's file",
    .recognise = recognise,
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_ext()->mutable_fown(); },
    .make = make,
};

}  // namespace criu::files
