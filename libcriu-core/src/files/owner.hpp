// SPDX-License-Identifier: LGPL-2.1-only
// Who gets a signal when something happens on a descriptor (F_SETOWN, F_SETSIG): a property of every description.
#pragma once

#include <fown.pb.h>

namespace criu::files {

void save_owner(int fd, images::fown_entry& owner);
void restore_owner(int fd, const images::fown_entry& owner);

}  // namespace criu::files
