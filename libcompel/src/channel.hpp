// SPDX-License-Identifier: LGPL-2.1-only
// How master and parasite tell each other things; the parasite's half is runtime/src/serve.cpp.
#pragma once

#include <compel/runtime_abi.h>

#include <cstdint>

namespace compel {

bool answered(const compel_slot& slot);

// Hands over the command in the slot: counts it, and flips the bit of the life word that waiters have seen.
void ring(compel_slot& slot, std::uint32_t* life);

// Sleeps until the answer may be there. False when it took so long that the thread itself should be looked after: a
// futex tells of answers, but not of a crash.
bool wait_for_answer(compel_slot& slot);

void send_descriptor(int socket, int fd);

}  // namespace compel
