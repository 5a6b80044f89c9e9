// SPDX-License-Identifier: LGPL-2.1-only
#include "restorer/inherited.hpp"

#include <signal.h>
#include <sys/personality.h>

#include "base/error.hpp"

namespace criu::restorer {

Inherited Inherited::of_this_process() {
  Inherited inherited{memory::own_mappings(), memory::own_vdso(), {}, 0, 0};
  for (int resource = 0; resource < static_cast<int>(RLIM_NLIMITS); ++resource) {
    base::check(::getrlimit(static_cast<__rlimit_resource>(resource), &inherited.limits[resource]), "read own limits");
  }
  for (int signo = 1; signo < NSIG; ++signo) {
    struct sigaction action {};
    // The C library keeps two signals for itself and does not tell about them: taken as changed.
    if (::sigaction(signo, nullptr, &action) != 0 || action.sa_handler != SIG_DFL || action.sa_flags != 0 ||
        ::sigisemptyset(&action.sa_mask) == 0) {
      inherited.changed_actions |= std::uint64_t{1} << (signo - 1);
    }
  }
  inherited.personality = base::check(::personality(0xffffffff), "read own personality");
  return inherited;
}

}  // namespace criu::restorer
