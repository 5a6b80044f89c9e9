// SPDX-License-Identifier: LGPL-2.1-only
// The memory of a tree that goes on: a checkpoint's forerunner, which it names as its parent.
#pragma once

#include "image/directory.hpp"
#include "options.hpp"

namespace criu {

// Copies the memory of the tasks into the image directory while they stand still. What would be in the way of a dump is
// said, and is not in the way of this.
void pre_dump(const Options& options);

// Throws base::Error when this process is in the tree, which it would stop with itself in it.
void check_outside(const Options& options);

// Makes the image directory say which checkpoint was before it (--prev-images-dir); nothing without the option.
void link_parent(const Options& options, const image::Directory& images);

}  // namespace criu
