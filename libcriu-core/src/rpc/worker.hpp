// SPDX-License-Identifier: LGPL-2.1-only
// Who serves one client of the RPC.
#pragma once

#include "options.hpp"
#include "rpc/channel.hpp"

namespace criu::rpc {

// Serves until the client has what it wants. The status for this process to end with: 0 well, 1 a dump or restore has
// failed, 255 anything else. `inherited`: the client has started this process (swrk), and shares descriptors with it.
int serve(Channel, const Options& base, bool inherited);

// Runs `criu service`: a worker for each connection, until a signal ends it. Throws base::Error.
void run_service(const Options&);

}  // namespace criu::rpc
