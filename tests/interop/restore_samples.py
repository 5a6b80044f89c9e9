#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""CRIU 4.2's own checkpoints go on here; and the programs that they were made of, started anew, survive three rounds.

usage: restore_samples.py CRIU-CLI SOURCE-ROOT [CASE...]

Needs the samples beside the source tree (or at $CRIU_SHARED), and for the checkpoints the very programs and libraries
that they were made of: a file is checked by size and build id before it is restored. All of it happens in a mount and
a pid namespace with a /tmp of their own, where the pids and paths of the samples are free."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import unittest

CRIU, SOURCE = map(os.path.abspath, sys.argv[1:3])
SAMPLES = os.path.join(os.environ.get("CRIU_SHARED", os.path.join(SOURCE, "..", "shared")), "samples")
INSIDE = "CRIU_INTEROP_INSIDE"
LIMIT = 20


def entries(sample, name):
    with open(f"{SAMPLES}/{sample}/json/{name}.img.json", encoding="utf-8") as file:
        return json.load(file)["entries"]


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def await_(condition, what):
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.005)


def await_file(path):
    await_(lambda: os.path.exists(path), f"{path} does not appear")
    return text_of(path)


def await_pause(pid):
    """A program that looks for signals only when pause(2) has been interrupted would not see one that comes before."""
    await_(lambda: text_of(f"/proc/{pid}/syscall").split()[0] == "34", f"{pid} does not wait for a signal")


class Samples(unittest.TestCase):
    def setUp(self):
        self.images = f"/tmp/{self.id().rsplit('.', 1)[-1]}"
        os.mkdir(self.images)

    def criu(self, command, *options):
        done = subprocess.run([CRIU, command, "-D", self.images, "-v4", "-o", "log", *options], cwd="/",
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr + text_of(self.images + "/log"))

    def end(self, pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def unpack(self, archive, directory):
        with tarfile.open(f"{SAMPLES}/{archive}") as tar:
            tar.extractall(directory)

    def take_images(self, sample):
        """Those that CRIU 4.2 wrote, if the files that they speak of are the same here."""
        for file in entries(sample, "files"):
            reg = file.get("reg", {})
            name = reg.get("name", "")
            if name.startswith("/usr/") and "size" in reg:
                if not os.path.exists(name) or os.stat(name).st_size != int(reg["size"]):
                    self.skipTest(f"{name} is not the one of the sample")
        if os.path.isdir(f"{SAMPLES}/{sample}/img"):
            shutil.copytree(f"{SAMPLES}/{sample}/img", self.images, dirs_exist_ok=True)
        else:
            self.unpack(f"{sample}/img.tar.xz", self.images + ".new")
            os.rmdir(self.images)
            os.rename(self.images + ".new/img", self.images)
        os.chmod(self.images, 0o700)

    def make_working_directory(self, sample, pid):
        """Where it was checkpointed. Goes again."""
        cwd = entries(sample, f"fs-{pid}")[0]["cwd_id"]
        path = next(file["reg"]["name"] for file in entries(sample, "files") if file["id"] == cwd)
        missing = path
        while not os.path.isdir(os.path.dirname(missing)):
            missing = os.path.dirname(missing)
        if not os.path.isdir(path):
            os.makedirs(path)
            self.addCleanup(shutil.rmtree, missing)
        return path

    def check_report(self, pid, path, count):
        """What a program that checks itself says when asked to."""
        if os.path.exists(path):
            os.unlink(path)
        os.kill(pid, signal.SIGUSR1)
        lines = await_file(path).splitlines()
        self.assertEqual([line for line in lines if not line.endswith(" ok")], [])
        self.assertEqual(len(lines), count)

    # ---- what CRIU wrote ----

    def test_sleep(self):
        self.take_images("sleep")
        pid = 31502
        cwd = self.make_working_directory("sleep", pid)
        self.criu("restore", "-d")
        self.addCleanup(self.end, pid)
        self.assertEqual(text_of(f"/proc/{pid}/comm"), "sleep\n")
        self.assertEqual(text_of(f"/proc/{pid}/cmdline"), "/bin/sleep\x00" "100000\x00")
        self.assertEqual(os.readlink(f"/proc/{pid}/exe"), "/usr/bin/sleep")
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), cwd)
        self.end(pid)  # which keeps the directory from being removed

    def test_kitchen(self):
        self.take_images("kitchen")
        pid = 31001
        self.make_working_directory("kitchen", pid)
        self.unpack("kitchen/scratch.tar.gz", "/tmp")
        self.criu("restore", "-d", "--tcp-established", "--file-locks", "--link-remap")
        self.addCleanup(self.end, pid)
        self.check_report(pid, "/tmp/kitchen/report", 9)

    def bind_root(self):
        subprocess.run(["mount", "--bind", "/tmp/nsk", "/tmp/nsk"], check=True)
        self.addCleanup(subprocess.run, ["umount", "--lazy", "/tmp/nsk"], check=True)

    def test_ns_kitchen(self):
        self.take_images("ns-kitchen")
        self.unpack("ns-kitchen/rootfs.tar.xz", "/tmp")
        self.addCleanup(shutil.rmtree, "/tmp/nsk")
        self.bind_root()
        self.criu("restore", "-d", "--root", "/tmp/nsk", "--pidfile", self.images + "/pid")
        pid = int(text_of(self.images + "/pid"))
        self.addCleanup(self.end, pid)
        await_pause(pid)
        self.check_report(pid, "/tmp/nsk/report", 11)
        self.end(pid)

    # ---- what is started anew ----

    def test_fresh_ns_kitchen(self):
        for program in ("/bin/busybox", "/usr/bin/gcc"):
            if not os.path.exists(program):
                self.skipTest(program + " is not installed")
        started = subprocess.run([f"{SAMPLES}/ns-kitchen.sh", "/tmp/nsk"], stdout=subprocess.PIPE, text=True,
                                 check=True, timeout=60)
        self.addCleanup(shutil.rmtree, "/tmp/nsk")
        pid = int(started.stdout)
        self.addCleanup(self.end, pid)
        self.bind_root()
        await_pause(pid)
        self.check_report(pid, "/tmp/nsk/report", 11)
        base = self.images
        for number in range(3):
            self.images = f"{base}/{number}"
            os.mkdir(self.images)
            await_pause(pid)
            self.criu("dump", "-t", str(pid), "--link-remap")
            self.criu("restore", "-d", "--root", "/tmp/nsk", "--pidfile", self.images + "/pid")
            pid = int(text_of(self.images + "/pid"))
            self.addCleanup(self.end, pid)
            await_pause(pid)
            self.check_report(pid, "/tmp/nsk/report", 11)
        self.end(pid)


if __name__ == "__main__":
    if not os.path.isdir(SAMPLES):
        print("SKIPPED: no samples of CRIU 4.2 (CRIU_SHARED)")
        sys.exit(77)
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable,
                              *sys.argv])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "tmp", "/tmp"], check=True)
    unittest.main(verbosity=2, argv=[sys.argv[0], *sys.argv[3:]])
