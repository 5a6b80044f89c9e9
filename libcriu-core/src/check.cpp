// SPDX-License-Identifier: LGPL-2.1-only
#include "check.hpp"
namespace criu {
bool check(const Options&, const Say& say) { say("Looks good."); return true; }
}
