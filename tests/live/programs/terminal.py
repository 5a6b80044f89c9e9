#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Programs on a terminal, and who types: all of one tree. Keys go into the terminal between the checkpoints, and what
the programs make of them is looked at.

usage: terminal.py DIR tmux|bash|script|python
"""
import ctypes
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

directory, program = sys.argv[1:3]
LIMIT = 20
PR_SET_CHILD_SUBREAPER = 36
# A daemon that one of the programs starts is to stay in the tree.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "TERM": "xterm", "HOME": directory, "LANG": "C.UTF-8",
               "PS1": "ready> ", "SHELL": "/bin/sh"}


class Terminal:
    """A terminal with a program on it."""

    def __init__(self, *command):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, environment)
        self.seen = ""

    def look(self, seconds):
        """Takes in what the program writes, for so long at most."""
        if select.select([self.master], [], [], seconds)[0]:
            self.seen += os.read(self.master, 65536).decode(errors="replace")

    def type(self, text):
        os.write(self.master, text.encode())

    def expect(self, pattern):
        """What matches this in all that is written from now on."""
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            found = re.search(pattern, self.seen)
            if found:
                self.seen = self.seen[found.end():]
                return found
            self.look(0.2)
        raise AssertionError(f"{pattern!r} does not come, but {self.seen[-300:]!r}")

    def until(self, condition, what):
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, f"{what}: does not come true"
            self.look(0.05)
        self.seen = ""


class Tmux:
    """A client and its server, with an editor in the pane: keys go to the client's terminal."""

    def __init__(self):
        self.text = os.path.join(directory, "text")
        self.socket = os.path.join(directory, "socket")
        self.terminal = Terminal("tmux", "-f", "/dev/null", "-S", self.socket, "new-session",
                                 f"vim -u NONE -i NONE -n {self.text}")
        self.resize(24, 80)
        self.terminal.until(lambda: "~" in self.screen(), "the editor is there")
        self.terminal.type("ibegun")
        self.terminal.until(lambda: "begun" in self.screen(), "the first word")

    def ask(self, *command):
        return subprocess.run(["tmux", "-S", self.socket, *command], env=environment, capture_output=True, text=True,
                              timeout=LIMIT).stdout

    def screen(self):
        return self.ask("capture-pane", "-p") if os.path.exists(self.socket) else ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def columns(self):
        """What the editor says; 0 until it says something."""
        self.terminal.type(":set columns?\r")
        said = re.findall(r"columns=(\d+)", self.screen())
        return int(said[-1]) if said else 0

    def check(self, n):
        assert ("begun" if n == 0 else f"typing {n - 1}") in self.screen(), "the screen has changed"
        # It has been in the middle of an insertion.
        self.terminal.type(f" and ended {n}\x1b:w\r")
        self.terminal.until(lambda: os.path.exists(self.text) and f" and ended {n}\n" in open(self.text).read(),
                            "the text is written")
        self.resize(30 + n, 100 + n)
        self.terminal.until(lambda: self.ask("display-message", "-p", "#{pane_width} #{pane_height}").strip() ==
                            f"{100 + n} {29 + n}", "the pane has the new size")
        # The editor hears of it a little later than the pane, and may be asked before it does.
        self.terminal.until(lambda: self.columns() == 100 + n, "the editor knows the new size")
        self.terminal.type(f"otyping {n}")
        self.terminal.until(lambda: f"typing {n}" in self.screen(), "what is typed is seen")


class Shell:
    """A shell with job control, and a job in its foreground."""

    def __init__(self, *command):
        self.terminal = Terminal(*command)
        self.terminal.expect("ready> $")
        self.terminal.type("x=100; sleep 1000 &\n")
        self.job = self.terminal.expect(r"\[1\] (\d+)").group(1)
        self.terminal.expect("ready> $")
        self.start_job()

    def job_is_in_foreground(self):
        with open(f"/proc/{self.job}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[5] == self.job

    def start_job(self):
        self.terminal.type("echo be''gun; cat\n")
        self.terminal.expect("begun\r\n")
        self.terminal.type("half a ")
        self.terminal.expect("half a ")

    def check(self, n):
        self.terminal.type(f"line {n}\n")
        self.terminal.expect(f"half a line {n}\r\n")  # the copy of cat; the echo came in two parts
        self.terminal.type("\x03")
        self.terminal.expect("ready> $")
        self.terminal.type("echo value $((x += 1)) and $(jobs | wc -l) job\n")
        self.terminal.expect(f"value {101 + n} and 1 job\r\n")
        self.terminal.expect("ready> $")
        self.terminal.type("fg\n")
        self.terminal.until(self.job_is_in_foreground, "the job is in the foreground")
        self.terminal.type("\x1a")
        self.terminal.expect("Stopped")
        self.terminal.expect("ready> $")
        self.terminal.type("bg\n")
        self.terminal.expect("ready> $")
        self.start_job()


class Python:
    """An interpreter that edits its line itself: the terminal is raw."""

    def __init__(self):
        self.terminal = Terminal("/usr/bin/python3", "-q", "-i")
        self.terminal.expect(">>> $")
        self.terminal.type("x = 41\n")
        self.terminal.expect(">>> $")
        self.terminal.type("x += 1; pr")
        self.terminal.expect(r"x \+= 1; pr")

    def check(self, n):
        # The cursor goes back and a word is put in before what was typed.
        self.terminal.type("\x01y = 1; \x05int('value', x)\n")
        self.terminal.expect(f"value {42 + n}\r\n")
        self.terminal.expect(">>> $")
        self.terminal.type("x += 1; pr")
        self.terminal.expect(r"x \+= 1; pr")


BASH = ("bash", "--norc", "--noprofile", "-i")


def put(name, text):
    path = os.path.join(directory, name)
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


try:
    subject = {"tmux": Tmux, "bash": lambda: Shell(*BASH), "python": Python,
               "script": lambda: Shell("script", "-q", "-c", " ".join(BASH), "/dev/null")}[program]()
except AssertionError as error:
    sys.exit(f"BAD {error}")
put("ready", str(os.getpid()))
number = 0
while True:
    subject.terminal.look(0.1)
    if not os.path.exists(os.path.join(directory, "go")):
        continue
    os.unlink(os.path.join(directory, "go"))
    try:
        subject.check(number)
        put("report", f"{program} {number} ok\n")
    except Exception as error:  # whatever it is, it is what the report is for
        put("report", f"{program} {number} BAD {error!r}\n")
    number += 1
