// SPDX-License-Identifier: LGPL-2.1-only
// Compiled once for the whole library: half of what the compiler does in an average file of it is to read these. Files
// include what they use all the same.
#include <core.pb.h>
#include <fdinfo.pb.h>
#include <fmt/format.h>
#include <mm.pb.h>
#include <pstree.pb.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>
