// SPDX-License-Identifier: LGPL-2.1-only
// From a socket to a value.
#pragma once

#include "saved.hpp"

namespace soccr {

// Of a connection that is held, that is, in repair mode.
Saved save_connection(int fd);
Saved save_listener(int fd, bool skip_pending);

}  // namespace soccr
