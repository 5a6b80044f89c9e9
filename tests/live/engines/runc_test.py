#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Containers of runc that are checkpointed and restored by runc itself, which finds this suite in CRIU's place.

runc_test.py [CASE...]     $CRIU_CLI is the program; as root
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

CRIU = os.environ["CRIU_CLI"]
LIMIT = 30
COUNT = "i=0; while true; do i=$((i+1)); echo $i >/count; sleep 0.02; done"


@unittest.skipIf(shutil.which("runc") is None or shutil.which("busybox") is None, "runc or busybox is not installed")
class Runc(unittest.TestCase):
    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="criu-live-runc-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.name = os.path.basename(self.base)
        os.makedirs(self.base + "/bin")
        os.symlink(CRIU, self.base + "/bin/criu")
        self.environment = dict(os.environ, PATH=self.base + "/bin:" + os.environ["PATH"])
        for directory in ("bin", "proc", "sys", "dev", "tmp"):
            os.makedirs(f"{self.base}/rootfs/{directory}")
        shutil.copy(shutil.which("busybox"), self.base + "/rootfs/bin/busybox")
        for applet in ("sh", "sleep", "cat", "echo"):
            os.symlink("busybox", f"{self.base}/rootfs/bin/{applet}")
        self.runc("spec")
        self.images = self.base + "/images"

    def runc(self, *arguments, check=True):
        # What a container keeps of its output would be a pipe to this test, or a file from outside.
        with open(self.base + "/errors", "w+b") as errors:
            done = subprocess.run(["runc", "--root", self.base + "/state", "--log", self.base + "/runc.log", *arguments],
                                  cwd=self.base, env=self.environment, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=errors if arguments[0] not in ("run", "restore")
                                  else subprocess.DEVNULL, timeout=60)
        if check:
            self.assertEqual(done.returncode, 0, self.complaints())
        return done.returncode

    def complaints(self):
        texts = []
        for name in ("errors", "runc.log", "images/dump.log", "images/restore.log"):
            try:
                with open(f"{self.base}/{name}", encoding="utf-8", errors="replace") as file:
                    texts.append(f"== {name}\n{file.read()[-2000:]}")
            except FileNotFoundError:
                pass
        return "\n".join(texts)

    def start(self, command, **annotations):
        with open(self.base + "/config.json", encoding="utf-8") as file:
            config = json.load(file)
        config["process"].update(terminal=False, args=["sh", "-c", command])
        config["root"]["readonly"] = False
        config["annotations"] = annotations
        config["mounts"].append({"destination": "/data", "source": self.base + "/data", "type": "bind",
                                 "options": ["rbind", "rw"]})
        os.makedirs(self.base + "/data", exist_ok=True)
        with open(self.base + "/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        self.addCleanup(self.runc, "delete", "--force", self.name, check=False)
        self.runc("run", "--detach", self.name)

    def state(self):
        done = subprocess.run(["runc", "--root", self.base + "/state", "state", self.name], capture_output=True)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def count(self, more_than):
        """What it has counted to, once that is more than it was."""
        until = time.monotonic() + LIMIT
        while True:
            try:
                with open(self.base + "/rootfs/count", encoding="ascii") as file:
                    text = file.read().strip()
            except FileNotFoundError:
                text = ""
            if text and int(text) > more_than:
                return int(text)
            self.assertLess(time.monotonic(), until, f"it does not count on from {more_than}\n" + self.complaints())
            time.sleep(0.005)

    def checkpoint(self, *options, check=True):
        return self.runc("checkpoint", "--image-path", self.images, "--work-path", self.images, *options, self.name,
                         check=check)

    def restore(self, *options):
        self.runc("restore", "--detach", "--image-path", self.images, "--work-path", self.images, *options, self.name)

    def test_three_rounds(self):
        self.start(COUNT)
        last = self.count(5)
        for _ in range(3):
            self.checkpoint()
            self.assertIsNone(self.state())
            with open(self.base + "/rootfs/count", encoding="ascii") as file:
                at = int(file.read())
            self.restore()
            self.assertEqual(self.state()["status"], "running")
            last = self.count(last)
            self.assertLess(last, at + 500)  # it went on, and did not start anew either
            shutil.rmtree(self.images)
        # It is runc's container still: commands run in it, and it ends as it is told to.
        self.runc("exec", self.name, "sh", "-c", "test $(cat /proc/1/comm) = sh && echo inside >/data/file")
        with open(self.base + "/data/file", encoding="ascii") as file:
            self.assertEqual(file.read(), "inside\n")
        self.runc("kill", self.name, "KILL")

    def test_control_group_and_pids(self):
        self.start("sleep 1000 & echo $! >/pid; " + COUNT)
        self.count(5)
        inside = self.groups()
        self.checkpoint()
        self.restore()
        self.assertEqual(self.groups(), inside)
        self.assertEqual(self.runc("exec", self.name, "sh", "-c", "test $(cat /proc/$(cat /pid)/comm) = sleep"), 0)

    def groups(self):
        with open(f"/proc/{self.state()['pid']}/cgroup", encoding="ascii") as file:
            return sorted(file)

    def test_leave_running(self):
        self.start(COUNT)
        last = self.count(5)
        self.checkpoint("--leave-running")
        self.assertEqual(self.state()["status"], "running")
        self.count(last)

    def test_a_failure_leaves_it_running(self):
        script, config = self.base + "/veto", self.base + "/criu.conf"
        with open(script, "w", encoding="ascii") as file:
            file.write('#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ]\n')
        os.chmod(script, 0o755)
        with open(config, "w", encoding="ascii") as file:
            file.write(f"action-script {script}\n")
        self.start(COUNT, **{"org.criu.config": config})
        last = self.count(5)
        self.assertNotEqual(self.checkpoint(check=False), 0)
        self.assertIn("post-dump script failed", self.complaints())
        self.assertEqual(self.state()["status"], "running")
        self.count(last)

    def test_a_restore_that_fails_leaves_nothing(self):
        self.start(COUNT)
        self.count(5)
        self.checkpoint()
        os.unlink(self.images + "/core-1.img")
        self.assertNotEqual(self.runc("restore", "--detach", "--image-path", self.images, "--work-path", self.images,
                                      self.name, check=False), 0)
        self.assertIsNone(self.state())
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            self.assertNotIn(self.base, file.read())
        self.assertEqual([root for root, _, _ in os.walk("/sys/fs/cgroup") if self.name in root], [])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unittest.main(verbosity=2, argv=sys.argv)
