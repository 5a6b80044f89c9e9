// SPDX-License-Identifier: LGPL-2.1-only
#pragma once

#include "files/kind.hpp"

namespace criu::files {

// POSIX message queues, which are recognised to be refused: a message can be looked at only by taking it out.
extern const Kind posix_mq_kind;

}  // namespace criu::files
