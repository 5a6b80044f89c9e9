#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Trees whose terminal, pipe or file comes from outside: --shell-job, --external, --inherit-fd. Three rounds each.

outside_test.py [CASE...]     runs the program named by $CRIU_CLI, as root; with UNSHARE=1 in a pid namespace of its own
"""
import ctypes
import fcntl
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

if os.environ.get("UNSHARE") == "1":
    del os.environ["UNSHARE"]
    os.execvp("unshare", ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, *sys.argv])

# Whatever the trees leave behind is ours to wait for.
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
CRIU = os.environ["CRIU_CLI"]
LIMIT = 30
ROUNDS = 3
ENVIRONMENT = dict(os.environ, TERM="dumb", PS1="ready> ")
BASH = ["bash", "--norc", "--noprofile", "-i"]


class Terminal:
    """A pty of this process, and who reads and types there."""

    def __init__(self):
        self.master, self.slave = os.openpty()
        self.path = os.ttyname(self.slave)
        node = os.fstat(self.slave)
        self.key = f"tty[{node.st_rdev:x}:{node.st_dev:x}]"
        self.seen = ""
        self.resize(24, 80)

    def close(self):
        os.close(self.master)
        self.close_slave()

    def close_slave(self):
        if self.slave >= 0:
            os.close(self.slave)
        self.slave = -1

    def start(self, *command):
        """A session that has this terminal, led by the command."""
        pid = os.fork()
        if pid == 0:
            os.setsid()
            fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
            for number in range(3):
                os.dup2(self.slave, number)
            os.closerange(3, 1000)
            os.execvpe(command[0], command, ENVIRONMENT)
        return pid

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.master, text.encode())

    def expect(self, pattern):
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            found = re.search(pattern, self.seen)
            if found:
                self.seen = self.seen[found.end():]
                return found
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
                except OSError:
                    break
        raise AssertionError(f"{pattern!r} does not come, but {self.seen[-500:]!r}")


def tree_of(pid):
    pids = [pid]
    for one in pids:
        with open(f"/proc/{one}/task/{one}/children") as file:
            pids += map(int, file.read().split())
    return pids


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def ended(pid):
    return state_of(pid) in ("", "Z")


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="criu-outside-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.count = 0

    def terminal(self):
        terminal = Terminal()
        self.addCleanup(terminal.close)
        return terminal

    def kill_later(self, pid):
        def kill():
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass  # it has ended, or is another's to wait for
        self.addCleanup(kill)
        return pid

    def images(self, new=False):
        self.count += 1 if new else 0
        path = os.path.join(self.dir, str(self.count))
        os.makedirs(path, exist_ok=True)
        return path

    def criu(self, command, *arguments, **more):
        """From a session of its own, without a terminal."""
        return subprocess.run([CRIU, command, "-D", self.images(new=command == "dump"), "-v4", "-o", command + ".log",
                               *arguments], stdin=more.pop("stdin", subprocess.DEVNULL), capture_output=True, text=True,
                              timeout=120, start_new_session=True, **more)

    def log(self, command):
        with open(os.path.join(self.images(), command + ".log")) as file:
            return file.read()[-3000:]

    def dump(self, pid, *arguments):
        pids = tree_of(pid)
        result = self.criu("dump", "-t", str(pid), *arguments)
        self.assertEqual(result.returncode, 0, result.stderr + self.log("dump"))
        for one in pids:
            try:
                os.waitpid(one, 0)
            except ChildProcessError:  # another's, who waits for it
                while state_of(one):
                    os.sched_yield()

    def restore(self, *arguments, **more):
        result = self.criu("restore", "-d", *arguments, **more)
        self.assertEqual(result.returncode, 0, result.stderr + self.log("restore"))

    def refused(self, says, command, *arguments, **more):
        result = self.criu(command, *arguments, **more)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(says, result.stderr)


class ShellJob(Case):
    JOB = "bash -c 'echo be\"\"gun $$; n=0; while read line; do echo \"got $line $((n += 1))\"; done'\n"

    def start_job(self):
        terminal = self.terminal()
        self.kill_later(terminal.start(*BASH))
        terminal.expect("ready> $")
        terminal.type(self.JOB)
        job = int(terminal.expect(r"begun (\d+)").group(1))
        terminal.type("first\n")
        terminal.expect("got first 1\r\n")
        return terminal, job

    def test_job_moves_from_terminal_to_terminal(self):
        first, job = self.start_job()
        second = self.terminal()
        self.kill_later(second.start(*BASH))
        second.expect("ready> $")
        for number in range(ROUNDS):
            self.dump(job, "--shell-job")
            (first if number == 0 else second).expect("ready> $")
            second.type(f"{CRIU} restore --shell-job -D {self.images()} -o restore.log -v4; echo en''ded\n")
            second.expect("\n")
            second.type(f"line {number}\n")
            second.expect(f"got line {number} {number + 2}\r\n")
            self.assertEqual(os.tcgetpgrp(second.master), os.getpgid(job))
            self.assertEqual(os.readlink(f"/proc/{job}/fd/0"), second.path)
        second.type("\x04")
        second.expect("ended")
        second.expect("ready> $")
        first.type("echo still $((1 + 1))\n")
        first.expect("still 2\r\n")

    def test_interrupt_reaches_the_job(self):
        first, job = self.start_job()
        self.dump(job, "--shell-job")
        first.expect("ready> $")
        first.type(f"{CRIU} restore --shell-job -D {self.images()} -o restore.log -v4\n")
        first.type("again\n")
        first.expect("got again 2\r\n")
        first.type("\x03")
        first.expect("ready> $")
        self.assertTrue(ended(job))

    def test_refused_without_the_option(self):
        first, job = self.start_job()
        self.refused("--shell-job", "dump", "-t", str(job))
        first.type("on\n")
        first.expect("got on 2\r\n")
        self.dump(job, "--shell-job")
        first.expect("ready> $")
        self.refused("--shell-job", "restore", "-d")
        self.refused("the standard input is no terminal", "restore", "-d", "--shell-job")
        self.assertTrue(ended(job))
        first.type("echo still $((1 + 1))\n")
        first.expect("still 2\r\n")

    def test_new_size_is_told(self):
        terminal = self.terminal()
        self.kill_later(terminal.start(*BASH))
        terminal.expect("ready> $")
        terminal.type("bash -c 'trap \"echo size $(stty size) \\$(stty size)\" WINCH; echo be\"\"gun $$; "
                      "while :; do read -t 1; done'\n")
        job = int(terminal.expect(r"begun (\d+)").group(1))
        self.dump(job, "--shell-job")
        second = self.terminal()
        second.resize(50, 132)
        self.kill_later(second.start(*BASH))
        second.expect("ready> $")
        second.type(f"{CRIU} restore --shell-job -D {self.images()} -o restore.log -v4\n")
        second.expect("size 24 80 50 132\r\n")
        second.type("\x03")
        second.expect("ready> $")

    def test_shell_itself(self):
        """A session leader is put on the terminal of the restore, which gives it away."""
        terminal = self.terminal()
        shell = self.kill_later(terminal.start(*BASH))
        terminal.expect("ready> $")
        terminal.type("x=1\n")
        terminal.expect("ready> $")
        for number in range(ROUNDS):
            self.dump(shell, "--shell-job")
            terminal = self.terminal()
            self.kill_later(terminal.start(CRIU, "restore", "--shell-job", "-D", self.images(), "-o", "restore.log", "-v4"))
            terminal.type("echo value $((x += 1))\n")
            terminal.expect(f"value {number + 2}\r\n")
            terminal.type("echo be''gun; cat\n")
            terminal.expect("begun\r\n")
            terminal.type("copied\n")
            terminal.expect("copied\r\ncopied\r\n")
            terminal.type("\x03")
            terminal.expect("ready> $")


class External(Case):
    def start_shell(self):
        terminal = self.terminal()
        shell = terminal.start(*BASH)
        self.kill_later(shell)
        terminal.expect("ready> $")
        terminal.type("x=1; sleep 1000 &\n")
        terminal.expect("ready> $")
        return terminal, shell

    def check(self, terminal, number):
        terminal.type(f"echo value $((x += 1)), $(jobs | wc -l) job, $(stty size)\n")
        terminal.expect(f"value {number + 2}, 1 job, 24 80\r\n")
        terminal.expect("ready> $")
        terminal.type("echo be''gun; cat\n")
        terminal.expect("begun\r\n")
        terminal.type("copied\n")
        terminal.expect("copied\r\ncopied\r\n")
        terminal.type("\x03")
        terminal.expect("ready> $")

    def test_shell_on_the_same_terminal_and_on_another(self):
        terminal, shell = self.start_shell()
        key = terminal.key
        terminal.close_slave()
        for number in range(ROUNDS):
            self.dump(shell, "--external", terminal.key)
            key = terminal.key
            if number > 0:
                terminal = self.terminal()
                terminal.close_slave()
            slave = os.open(terminal.path, os.O_RDWR | os.O_NOCTTY)
            self.restore("--inherit-fd", f"fd[{slave}]:{key}", pass_fds=[slave])
            os.close(slave)
            self.check(terminal, number)

    def test_a_shell_job_gets_what_is_given(self):
        terminal, shell = self.start_shell()
        self.dump(shell, "--shell-job")
        other = self.terminal()
        self.restore("--inherit-fd", f"fd[{other.slave}]:{terminal.key}", pass_fds=[other.slave])
        self.check(other, 0)

    def test_missing_or_wrong(self):
        terminal, shell = self.start_shell()
        self.dump(shell, "--external", terminal.key)
        self.refused(f"--inherit-fd fd[N]:{terminal.key} gives one", "restore", "-d")
        with open("/dev/null") as null:
            self.refused("is no terminal", "restore", "-d", "--inherit-fd", f"fd[{null.fileno()}]:{terminal.key}",
                         pass_fds=[null.fileno()])
        self.refused("Can't fstat inherit fd 99", "restore", "-d", "--inherit-fd", f"fd[99]:{terminal.key}")
        self.refused("Invalid inherit fd argument: fd(0):x", "restore", "-d", "--inherit-fd", "fd(0):x")
        # One that controls another session.
        other = self.terminal()
        self.kill_later(other.start(*BASH))
        other.expect("ready> $")
        self.refused("controls another session", "restore", "-d", "--inherit-fd", f"fd[{other.slave}]:{terminal.key}",
                     pass_fds=[other.slave])
        self.assertTrue(ended(shell))


class Inherited(Case):
    def start(self, script, **more):
        return self.popen(["bash", "-c", script], **more)

    def popen(self, command, **more):
        process = subprocess.Popen(command, start_new_session=True, **more)
        self.kill_later(process.pid)
        process.returncode = 0  # we do the waiting
        return process

    def test_pipes(self):
        into, out = os.pipe(), os.pipe()
        process = self.start("while read line; do echo \"got $line $((n += 1))\"; done", stdin=into[0], stdout=out[1],
                             stderr=subprocess.DEVNULL)
        for number in range(ROUNDS):
            os.write(into[1], f"line {number}\n".encode())
            self.assertEqual(os.read(out[0], 100).decode(), f"got line {number} {number + 1}\n")
            keys = [f"pipe:[{os.fstat(fd[0]).st_ino}]" for fd in (into, out)]
            self.dump(process.pid)
            self.restore("--inherit-fd", f"fd[{into[0]}]:{keys[0]}", "--inherit-fd", f"fd[{out[1]}]:{keys[1]}",
                         pass_fds=[into[0], out[1]])
        # Nobody else keeps them open.
        os.close(into[0])
        os.close(out[1])
        os.close(into[1])
        self.assertEqual(os.read(out[0], 100), b"")

    def test_a_pipe_that_is_another(self):
        first, second, out = os.pipe(), os.pipe(), os.pipe()
        process = self.start("read line; read other; echo \"$line $other\"", stdin=first[0], stdout=out[1])
        os.write(first[1], b"first ")
        key = f"pipe:[{os.fstat(first[0]).st_ino}]"
        out_key = f"pipe:[{os.fstat(out[0]).st_ino}]"
        # What waits goes along.
        os.kill(process.pid, signal.SIGSTOP)
        while state_of(process.pid) != "T":
            os.sched_yield()
        os.write(first[1], b"half\n")
        self.dump(process.pid)
        self.restore("--inherit-fd", f"fd[{second[0]}]:{key}", "--inherit-fd", f"fd[{out[1]}]:{out_key}",
                     pass_fds=[second[0], out[1]])
        os.kill(process.pid, signal.SIGCONT)
        os.write(second[1], b"second\n")
        self.assertEqual(os.read(out[0], 100), b"first half second\n")

    def commands(self):
        """Where the shell under test reads its lines from: a FIFO that is there all the time."""
        path = os.path.join(self.dir, "commands")
        os.mkfifo(path)
        fd = os.open(path, os.O_RDWR)
        self.addCleanup(os.close, fd)
        return fd

    def wait_for_size(self, path, size):
        until = time.monotonic() + LIMIT
        while os.path.getsize(path) < size:
            self.assertLess(time.monotonic(), until, f"{path} does not grow")
            os.sched_yield()

    def test_files(self):
        path = os.path.join(self.dir, "log")
        commands = self.commands()
        with open(path, "w") as log:
            process = self.start("while read line; do echo \"$line\"; done", stdin=commands, stdout=log,
                                 stderr=subprocess.DEVNULL)
        for number in range(ROUNDS):
            os.write(commands, b"line\n")
            self.wait_for_size(path, 5)
            options, key = [], path[1:]
            if number > 0:
                with open(f"/proc/{process.pid}/fdinfo/1") as info:
                    mount = int(re.search(r"mnt_id:\s*(\d+)", info.read()).group(1))
                key = f"file[{mount:x}:{os.stat(path).st_ino:x}]"
                options = ["--external", key]
            self.dump(process.pid, *options)
            if options:
                self.refused(f"--inherit-fd 'fd[N]:{key}' gives it", "restore", "-d")
            path += "+"
            with open(path, "w") as log:
                self.restore("--inherit-fd", f"fd[{log.fileno()}]:{key}", pass_fds=[log.fileno()])
            self.assertEqual(os.readlink(f"/proc/{process.pid}/fd/1"), path)

    def test_a_memory_file(self):
        commands, memory, out = self.commands(), os.memfd_create("given"), os.path.join(self.dir, "out")
        os.write(memory, b"dumped\n")
        with open(out, "w") as file:
            # Of built-in commands alone: a child would be seen ending by the dump.
            process = self.start(f"while read line; do read line < /proc/$$/fd/{memory}; echo $line; done",
                                 stdin=commands, stdout=file, pass_fds=[memory])
        os.write(commands, b"\n")
        self.wait_for_size(out, 7)
        self.dump(process.pid)
        other = os.memfd_create("another")
        os.write(other, b"given\n")
        self.restore("--inherit-fd", f"fd[{other}]:/memfd:given", pass_fds=[other])
        os.write(commands, b"\n")
        self.wait_for_size(out, 13)
        with open(out) as file:
            self.assertEqual(file.read(), "dumped\ngiven\n")

    def test_a_listening_socket(self):
        program = ("import socket\nlistener = socket.socket(fileno=%d)\nnumber = 0\n"
                   "while True:\n    peer = listener.accept()[0]\n    number += 1\n    peer.send(b'%%d' %% number)\n"
                   "    peer.close()\n")

        def listen(name):
            listener = socket.socket(socket.AF_UNIX)
            self.addCleanup(listener.close)
            listener.bind(os.path.join(self.dir, name))
            listener.listen(4)
            return listener

        def ask(name):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(LIMIT)
                client.connect(os.path.join(self.dir, name))
                return client.recv(10)

        first = listen("first")
        process = self.popen(["/usr/bin/python3", "-c", program % first.fileno()], pass_fds=[first.fileno()],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        number = os.fstat(first.fileno()).st_ino
        first.close()
        self.assertEqual(ask("first"), b"1")
        self.dump(process.pid)
        second = listen("second")
        self.restore("--inherit-fd", f"fd[{second.fileno()}]:socket:[{number}]", pass_fds=[second.fileno()])
        second.close()
        self.assertEqual(ask("second"), b"2")


if __name__ == "__main__":
    unittest.main(verbosity=2)
