// SPDX-License-Identifier: LGPL-2.1-only
// Who gets a signal when something happens on a descriptor (F_SETOWN, F_SETSIG): a property of every description.
#pragma once

#include <fown.pb.h>

#include "dump_context.hpp"

namespace criu::files {

// Of a file of the tree, its ids as they are there.
void save_owner(const DumpContext&, int fd, images::fown_entry& owner);
// As they are here.
void read_owner(int fd, images::fown_entry& owner);
void restore_owner(int fd, const images::fown_entry& owner);

}  // namespace criu::files
