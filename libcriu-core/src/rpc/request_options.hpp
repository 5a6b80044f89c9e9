// SPDX-License-Identifier: LGPL-2.1-only
// What a request asks for, as options.
#pragma once

#include <rpc.pb.h>
#include <sys/types.h>

#include <vector>

#include "base/fd.hpp"
#include "options.hpp"

namespace criu::rpc {

// Where a request comes from.
struct Origin {
  pid_t client;
  bool inherited;  // the worker is the client's child, and has descriptors of it
};

struct RequestOptions {
  Options options;
  std::vector<base::Fd> descriptors;  // of the client, which the options name
};

// The options of a request on top of those that hold for all, with its configuration file. Throws base::Error.
RequestOptions read_options(const Options& base, const images::criu_opts&, const Origin&, Command);

}  // namespace criu::rpc
