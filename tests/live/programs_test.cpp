// SPDX-License-Identifier: GPL-2.0-only
// Real programs at work, as a user would checkpoint them. What each does is in programs/.
#include "harness/live.hpp"

using live::Program;
using live::Tell;

LIVE_PROGRAM("program: bash", Program{.arguments = {"bash", "@work.sh"}});
LIVE_PROGRAM("program: python3 with threads", Program{.arguments = {"/usr/bin/python3", "@work.py"}});
LIVE_PROGRAM("program: perl", Program{.arguments = {"perl", "@work.pl"}});
LIVE_PROGRAM("program: node", Program{.arguments = {"node", "@work.js"}});
LIVE_PROGRAM("program: a JVM with a thread pool", Program{.arguments = {"sh", "@jvm.sh"}});
LIVE_PROGRAM("program: sqlite3 in memory", Program{.arguments = {"bash", "@sqlite.sh"}});
LIVE_PROGRAM("program: tmux, its server, and vim in it",
             Program{.arguments = {"/usr/bin/python3", "@terminal.py"}, .more = {"tmux"}});
LIVE_PROGRAM("program: an interactive bash on a pty",
             Program{.arguments = {"/usr/bin/python3", "@terminal.py"}, .more = {"bash"}});
LIVE_PROGRAM("program: script with a bash in it",
             Program{.arguments = {"/usr/bin/python3", "@terminal.py"}, .more = {"script"}});
LIVE_PROGRAM("program: an interactive python on a pty",
             Program{.arguments = {"/usr/bin/python3", "@terminal.py"}, .more = {"python"}});
LIVE_PROGRAM("program: the kitchen of CRIU's samples",
             Program{.arguments = {"/usr/bin/python3", "@kitchen.py"}, .tell = Tell::signal},
             {.dump = {"--link-remap", "--tcp-established", "--file-locks"},
              .restore = {"--tcp-established", "--file-locks"}});
