// SPDX-License-Identifier: LGPL-2.1-only
// /dev/net/tun, opened but not attached to a device. A device belongs to its network namespace.
#include "files/tun.hpp"

#include "files/common.hpp"
#include "files/owner.hpp"
#include "files/regular.hpp"
#include "files/saver.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::Error;

namespace {

constexpr unsigned misc_major = 10, tun_minor = 200;

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  if (const auto device = kernel::field(description.info.text, "iff"); device && !device->empty()) {
    throw Error("not supported by this version",
                fmt::format("{} is the network tunnel {}: devices go with their network namespace", description.what(),
                            *device),
                0);
  }
  entry.mutable_tunf()->set_id(entry.id());
  // The path and the flags are of a file entry with the same number.
  images::file_entry file;
  file.set_type(images::REG);
  file.set_id(entry.id());
  save_owner(saver.dump(), description.own, *file.mutable_reg()->mutable_fown());
  save_path(saver, description, file);
  saver.put(file);
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->tunf();
  const auto what = fmt::format("network tunnel (file {})", entry.id());
  if (entry.has_netdev()) {
    throw Error("not supported by this version", fmt::format("{} with the device {}", what, entry.netdev()), 0);
  }
  const auto& file = context.checkpoint.file(images::REG, entry.id(), what);
  auto fd = open_path(context, entry.id(), static_cast<int>(file.reg().flags()), what);
  restore_owner(fd.get(), file.reg().fown());
  return one(std::move(fd));
}

}  // namespace

const Kind tun_kind = {
    .type = images::TUNF,
    .name = "network tunnel",
    .recognise =
        [](const Description& description) {
          return S_ISCHR(description.stat.st_mode) && (description.info.flags & O_PATH) == 0 &&
                 description.stat.st_rdev == gnu_dev_makedev(misc_major, tun_minor);
        },
    .save = save,
    .make = make,
};

}  // namespace criu::files
