// SPDX-License-Identifier: GPL-2.0-only
// Things a victim does and checks by itself.
#pragma once

#include "victim.hpp"

namespace test {

// Holds patterns in all its registers until board.released is set. 0 when all are as they were.
int registers_held(Board& board);

// Threads in every usual kind of wait, each of which checks at the end that it was not disturbed, and a leader that
// holds registers. board.values[0] takes the first thread's number that was disturbed. The result is 0 when none was.
// `threads` become ready one by one, the leader last; then all wait for board.released.
constexpr int busy_threads = 7;
int busy_process(Board& board);

}  // namespace test
