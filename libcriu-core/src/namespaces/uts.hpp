// SPDX-License-Identifier: LGPL-2.1-only
// The host and domain name of a UTS namespace of the tree's own.
#pragma once

#include <core.pb.h>

#include "image/directory.hpp"

namespace criu::namespaces {

// Of the UTS namespace that this process is in.
void save_uts(const image::Directory&, const images::task_kobj_ids_entry& root_ids,
              const images::task_kobj_ids_entry& own_ids);
// Sets them there.
void restore_uts(const image::Directory&, std::uint32_t ns_id);

}  // namespace criu::namespaces
