// SPDX-License-Identifier: LGPL-2.1-only
#pragma once

namespace criu {

// The version of CRIU whose command line, protocols and images this suite speaks: programs compare it.
inline constexpr const char* version_text = "4.2";

}  // namespace criu
