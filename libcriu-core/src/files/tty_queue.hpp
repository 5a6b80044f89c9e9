// SPDX-License-Identifier: LGPL-2.1-only
// What waits unread in a pty, in either direction. The kernel lets nobody look without taking it out, so a dump takes
// it and puts it back at once; a restore puts it into a new pty in the same way.
#pragma once

#include <tty.pb.h>

#include <cstdint>
#include <string>
#include <vector>

namespace criu::files {

// What a program would read from the slave.
struct TtyInput {
  std::string bytes;
  // In canonical mode: how long each finished line is; behind them a line is still being typed.
  std::vector<std::uint32_t> lines;
};

// A pty whose programs are stopped, or not there yet.
struct PtyEnds {
  int master;
  int slave;  // a description that does not block; -1: the slave is not to be opened
  std::string what;
};

// Takes out all that is unread and puts it back.
struct PtyContents {
  TtyInput input;                   // of the slave
  std::string output;               // for the master
  std::uint32_t packet_status = 0;  // of a master in packet mode: what its next read tells
  std::uint32_t stopped = 0;        // tty_extension.stopped
};
PtyContents look_into(const PtyEnds&, bool packet_mode);

// Puts it into a pty with nothing unread. `packet_mode`: it is to be in that mode afterwards.
void fill(const PtyEnds&, const PtyContents&, bool packet_mode);

// The lines of input that comes from CRIU, which records bytes alone.
std::vector<std::uint32_t> lines_of(const std::string& bytes, const images::termios_entry& termios);

}  // namespace criu::files
