#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What criu-cli does with damaged checkpoints and in bad places: one clear error, no crash, no task left, no victim hurt.

Runs the program named by $CRIU_CLI, as root. $SEED repeats a run, $DAMAGES sets how many damaged copies are tried."""

import ctypes
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

CRIU = os.environ["CRIU_CLI"]
SEED = int(os.environ.get("SEED", "4711"))
DAMAGES = int(os.environ.get("DAMAGES", "200"))
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x20000
MS_RDONLY = 1
MS_REC_PRIVATE = 0x4000 | 0x40000
MNT_DETACH = 2
libc = ctypes.CDLL(None, use_errno=True)

# Two processes, threads, a pipe, memory that is shared, a removed file: most kinds of image.
PROGRAM = """
import mmap, os, sys, threading, time
shared = mmap.mmap(-1, 8192)
reader, writer = os.pipe()
gone = open(sys.argv[1], "w+"); os.unlink(sys.argv[1]); gone.write("x" * 20000); gone.flush()
os.write(writer, b"queued")
if os.fork() == 0:
    while True: time.sleep(1000)
threading.Thread(target=lambda: time.sleep(1000), daemon=True).start()
print("ready", flush=True)
os.dup2(os.open("/dev/null", os.O_RDWR), 1)
while True: time.sleep(1000)
"""


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def state(pid):
    try:
        return read("/proc/%d/stat" % pid).rsplit(b")", 1)[1].split()[0].decode()
    except OSError:
        return "-"


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Tasks of a restore that detached, and whatever one leaves, end up here.
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="criu-bad-")
        self.addCleanup(shutil.rmtree, self.dir)
        self.images = os.path.join(self.dir, "images")
        os.mkdir(self.images)

    def start(self):
        program = subprocess.Popen(["python3", "-c", PROGRAM, self.dir + "/gone"], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)
        self.assertEqual(program.stdout.readline(), b"ready\n")
        program.stdout.close()
        program.returncode = 0  # it is waited for here, by pid
        self.pids = [program.pid] + [int(pid) for pid in read("/proc/%d/task/%d/children" % (program.pid, program.pid)).split()]
        self.assertEqual(len(self.pids), 2)
        self.addCleanup(self.clear)
        return program.pid

    def clear(self):
        for pid in self.pids:
            end(pid)
        self.reap()

    def reap(self):
        """Waits for all children; whoever is still there after a failed restore makes this fail."""
        deadline = time.monotonic() + 20
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                if time.monotonic() > deadline:
                    left = read("/proc/self/task/%d/children" % os.getpid()).split()
                    for pid in left:
                        end(int(pid))
                    self.fail("tasks are left: %s" % left)
                time.sleep(0.001)

    def criu(self, *args, **more):
        return subprocess.run([CRIU, *args], cwd=self.dir, capture_output=True, timeout=60, **more)

    def dump(self):
        pid = self.start()
        result = self.criu("dump", "-t", str(pid), "-D", self.images)
        self.assertEqual(result.returncode, 0, result)
        self.reap()
        return pid

    def unharmed(self):
        for pid in self.pids:
            self.assertIn(state(pid), "SR")
            self.assertIn(b"TracerPid:\t0", read("/proc/%d/status" % pid))

    def refused(self, result, says=None):
        """Exit code 1, and what was wrong."""
        self.assertEqual(result.returncode, 1, result)
        self.assertIn(b"Error", result.stderr)
        if says is not None:
            self.assertIn(says, result.stderr.decode(errors="replace"))


class Images(Case):
    def restore(self, what, must_fail=False):
        """Fails and leaves nothing, or succeeds; then its tasks, whatever their pids are now, are ended."""
        result = self.criu("restore", "-D", self.images, "-d", "--pidfile", self.dir + "/pid")
        with self.subTest(what):
            self.assertIn(result.returncode, (1,) if must_fail else (0, 1), "%s: %s" % (what, result))
            if result.returncode == 1:
                self.assertIn(b"Error", result.stderr, what)
                self.assertNotIn(b"libprotobuf", result.stderr, what)
                self.assertLess(result.stderr.count(b"\n"), 6, "%s: %s" % (what, result))
        if result.returncode == 0:
            children = [os.path.basename(path) for path in os.listdir("/proc") if path.isdigit()]
            mine = {os.getpid()}
            for pid in sorted(map(int, children)):
                try:
                    if int(read("/proc/%d/stat" % pid).rsplit(b")", 1)[1].split()[1]) in mine:
                        mine.add(pid)
                        end(pid)
                except OSError:
                    pass
        self.reap()
        if os.path.exists(self.dir + "/pid"):
            os.unlink(self.dir + "/pid")
        self.assertFalse([name for name in os.listdir(self.dir) if name.startswith("gone")], what)
        return result

    def test_damaged(self):
        """Bytes changed, pieces cut off, doubled or exchanged between files."""
        self.dump()
        whole = {name: read(os.path.join(self.images, name)) for name in sorted(os.listdir(self.images))
                 if name.endswith(".img")}
        names = sorted(whole)
        chance = random.Random(SEED)
        for number in range(DAMAGES):
            name = chance.choice(names)
            data = bytearray(whole[name])
            kind = chance.choice(["flip", "flip", "flips", "cut", "grow", "foreign"])
            if kind in ("flip", "flips"):
                for _ in range(1 if kind == "flip" else 20):
                    if data:
                        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            elif kind == "cut":
                del data[chance.randrange(len(data) + 1):]
            elif kind == "grow":
                data += bytes(chance.randrange(256) for _ in range(chance.randrange(1, 100)))
            else:
                data = bytearray(whole[chance.choice(names)])
            path = os.path.join(self.images, name)
            write(path, data)
            self.restore("seed %d, damage %d: %s of %s" % (SEED, number, kind, name))
            write(path, whole[name])
        self.assertEqual(self.restore("repaired").returncode, 0)

    def test_missing(self):
        self.dump()
        # Files whose absence means that there is nothing of the kind, and those which a restore can do without.
        for name in sorted(os.listdir(self.images)):
            if name.endswith(".img"):
                path = os.path.join(self.images, name)
                # An empty image is as good as none.
                necessary = os.path.getsize(path) > 0 and name.startswith(("inventory", "pstree", "core-", "mm-", "pages-", "files", "ghost-file", "fs-"))
                os.rename(path, self.dir + "/away")
                result = self.restore("without " + name, must_fail=necessary)
                if necessary and not name.startswith("pages-"):
                    self.assertIn(name.split("-")[0].split(".")[0].encode(), result.stderr, result)
                os.rename(self.dir + "/away", path)
        self.assertEqual(self.restore("complete").returncode, 0)

    def test_nothing(self):
        self.refused(self.criu("restore", "-D", self.images, "-d"), "inventory")

    def test_pid_in_use(self):
        """Of the root or of a child: whoever has it now is none of our business."""
        self.dump()
        for pid in self.pids:
            try:
                write("/proc/sys/kernel/ns_last_pid", str(pid - 1).encode())
            except OSError as error:
                self.skipTest(str(error))
            other = subprocess.Popen(["sleep", "1000"])
            try:
                if other.pid != pid:
                    self.skipTest("somebody else was faster")
                self.refused(self.criu("restore", "-D", self.images, "-d"), str(pid))
                self.assertIsNone(other.poll())
            finally:
                other.kill()
                other.wait()
        self.assertEqual(self.restore("when they are free again").returncode, 0)


class Places(Case):
    def mount(self, flags, options):
        self.assertEqual(libc.mount(b"small", self.images.encode(), b"tmpfs", flags, options.encode()), 0)

    def test_no_such_pid(self):
        other = subprocess.Popen(["true"])
        other.wait()
        self.refused(self.criu("dump", "-t", str(other.pid), "-D", self.images), str(other.pid))

    def test_full_disk(self):
        """Sizes from no room for the first image to none for the last."""
        pid = self.start()

        for size in (4, 16, 64, 256, 1024):
            self.mount(0, "size=%dk" % size)
            self.refused(self.criu("dump", "-t", str(pid), "-D", self.images), "No space left on device")
            self.assertFalse(os.path.exists(self.images + "/inventory.img"))
            self.unharmed()
            libc.umount2(self.images.encode(), MNT_DETACH)

    def test_read_only_directory(self):
        """Permissions do not stop root, a mount that is read only does."""
        pid = self.start()
        self.mount(MS_RDONLY, "")
        result = self.criu("dump", "-t", str(pid), "-D", self.images)
        self.refused(result, "Read-only file system")
        self.unharmed()
        libc.umount2(self.images.encode(), MNT_DETACH)

    def test_no_directory(self):
        pid = self.start()
        for path in (self.images + "/missing", "/dev/null"):
            self.refused(self.criu("dump", "-t", str(pid), "-D", path), path)
        self.unharmed()


if __name__ == "__main__":
    # What is mounted here is seen by this process and its victims alone, and goes with them.
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None) != 0:
        raise SystemExit("bad_input_test.py needs root")
    unittest.main()
