#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Mounts that a tree has in common with where it is dumped and restored: --external mnt[], sharing, masters.

mounts_outside_test.py [CASE...]     runs the program named by $CRIU_CLI, as root, in a mount namespace of its own
"""
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

if os.environ.get("OUTSIDE_MOUNTS") != "1":
    # What is "outside" to the trees below is private to this test, which an init keeps clean.
    os.environ["OUTSIDE_MOUNTS"] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc",
                          "--kill-child", sys.executable, *sys.argv])

CRIU = os.environ["CRIU_CLI"]
libc = ctypes.CDLL(None, use_errno=True)
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 0x1000, 0x4000, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2
CLONE_NEWNS = 0x20000


def checked(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def mount(source, target, kind=None, flags=0):
    checked(libc.mount(*(None if text is None else text.encode() for text in (source, target, kind)),
                       ctypes.c_ulong(flags), None), f"mount {target}")


def mounts(pid="self"):
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        return file.readlines()


class OutsideTest(unittest.TestCase):
    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="criu-live-outside-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.addCleanup(libc.umount2, self.base.encode(), MNT_DETACH)
        mount("outside", self.base, "tmpfs")
        for name in ("source/point", "seen", "images"):
            os.makedirs(f"{self.base}/{name}")
        mount("source", f"{self.base}/source", "tmpfs")
        mount(None, f"{self.base}/source", None, MS_SHARED)
        os.mkdir(f"{self.base}/source/point")
        self.root = None
        self.addCleanup(self.end)

    def end(self):
        if self.root is not None:
            os.kill(self.root, signal.SIGKILL)
            os.waitpid(self.root, 0)
            self.root = None

    def start(self, *flags):
        """A task in a mount namespace of its own that sees the source at another place, with these flags."""
        ready, tell = os.pipe()
        self.root = os.fork()
        if self.root == 0:
            try:
                os.setsid()
                checked(libc.unshare(CLONE_NEWNS), "unshare")
                mount(f"{self.base}/source", f"{self.base}/seen", None, MS_BIND)
                libc.umount2(f"{self.base}/source".encode(), MNT_DETACH)
                for flag in flags:
                    mount(None, f"{self.base}/seen", None, flag)
                os.chdir("/")
                null = os.open("/dev/null", os.O_RDWR)
                for number in range(3):
                    os.dup2(null, number)
                os.write(tell, b"y")
                os.closerange(3, 1000)
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        os.close(tell)
        self.assertEqual(os.read(ready, 1), b"y")
        os.close(ready)

    def run_criu(self, command, *arguments):
        return subprocess.run([CRIU, command, "-D", f"{self.base}/images", "--external", "mnt[]", *arguments],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    def dump(self, *arguments):
        result = self.run_criu("dump", "-t", str(self.root), *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        os.waitpid(self.root, 0)
        self.root = None

    def restore(self, *arguments):
        pidfile = f"{self.base}/pid"
        result = self.run_criu("restore", "-d", "-S", "--pidfile", pidfile, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        with open(pidfile, encoding="ascii") as file:
            self.root = int(file.read())
        os.unlink(pidfile)

    def sees(self, inside):
        """Whether what is mounted outside is seen inside, or the other way round."""
        outside = f"{self.base}/source/point"
        if inside:
            mount("new", outside, "tmpfs")
        else:
            subprocess.run(["nsenter", "-t", str(self.root), "-m", "mount", "-t", "tmpfs", "new", f"{self.base}/seen/point"],
                           check=True)
        point = f"{self.base}/seen/point" if inside else outside
        found = any(line.split()[4] == point for line in mounts(self.root if inside else "self"))
        if inside:
            checked(libc.umount2(outside.encode(), 0), "umount")
        else:
            subprocess.run(["nsenter", "-t", str(self.root), "-m", "umount", f"{self.base}/seen/point"], check=True)
        return found

    def refused(self, result, option):
        self.assertEqual(result.returncode, 1)
        self.assertIn(option, result.stderr)

    def test_shared(self):
        self.start()
        self.refused(self.run_criu("dump", "-t", str(self.root)), "--enable-external-sharing allows that")
        self.assertTrue(self.sees(True) and self.sees(False))
        self.dump("--enable-external-sharing")
        self.refused(self.run_criu("restore", "-d"), "--enable-external-sharing does so again")
        self.restore("--enable-external-sharing")
        self.assertTrue(self.sees(True))
        self.assertTrue(self.sees(False))
        self.dump("--external", "mnt[]:s")  # the other way to say it
        self.restore("--external", "mnt[]:s")
        self.assertTrue(self.sees(True) and self.sees(False))

    def test_slave(self):
        self.start(MS_SLAVE)
        self.refused(self.run_criu("dump", "-t", str(self.root)), "--enable-external-masters allows that")
        self.dump("--enable-external-masters")
        self.refused(self.run_criu("restore", "-d"), "--enable-external-masters does so again")
        self.restore("--enable-external-masters")
        self.assertTrue(self.sees(True))
        self.assertFalse(self.sees(False))

    def test_slave_with_peers_of_its_own(self):
        self.start(MS_SLAVE, MS_SHARED)
        self.dump("--external", "mnt[]:m")
        self.restore("--external", "mnt[]:m")
        self.assertTrue(self.sees(True))
        self.assertFalse(self.sees(False))
        words = next(line for line in mounts(self.root) if line.split()[4] == f"{self.base}/seen").split()
        self.assertTrue(any(word.startswith("shared:") for word in words))
        self.assertTrue(any(word.startswith("master:") for word in words))

    def test_private(self):
        self.start(MS_PRIVATE)
        with open(f"{self.base}/source/file", "w", encoding="ascii") as file:
            file.write("outside")
        self.dump()
        self.restore()
        self.assertFalse(self.sees(True) or self.sees(False))
        with open(f"{self.base}/source/file", "w", encoding="ascii") as file:
            file.write("changed")
        with open(f"/proc/{self.root}/root{self.base}/seen/file", encoding="ascii") as file:
            self.assertEqual(file.read(), "changed")

    def test_gone(self):
        """What was outside is not there any more: named, and nothing is left of the restore."""
        self.start(MS_PRIVATE)
        self.dump()
        checked(libc.umount2(f"{self.base}/source".encode(), MNT_DETACH), "umount")
        os.rmdir(f"{self.base}/source/point")
        os.rmdir(f"{self.base}/source")
        before = mounts()
        self.refused(self.run_criu("restore", "-d"), f"{self.base}/source for mount {self.base}/seen")
        self.assertEqual(mounts(), before)


if __name__ == "__main__":
    unittest.main(verbosity=2)
