#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Containers of runc with users of their own, checkpointed and restored by runc itself.

runc_users_test.py [CASE...]     $CRIU_CLI is the program; as root
"""
import json
import os
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine import Engine, await_, counting  # noqa: E402

FIRST, COUNT = 200000, 65536


@unittest.skipIf(shutil.which("runc") is None or shutil.which("busybox") is None, "runc or busybox is not installed")
class RuncUsers(Engine):
    def setUp(self):
        super().setUp()
        os.chmod(self.base, 0o755)
        self.images = self.base + "/images"
        self.runc("spec")
        for path, directories, files in os.walk(self.rootfs):
            for name in [".", *directories, *files]:
                os.lchown(os.path.join(path, name), FIRST, FIRST)

    def runc(self, *arguments, check=True):
        with open(self.base + "/errors", "w+b") as errors:
            command = ["runc", "--root", self.base + "/state", "--log", self.base + "/runc.log", *arguments]
            # A container has what it is started with.
            quiet = arguments[0] in ("run", "restore")
            done = subprocess.run(command, cwd=self.base, env=self.environment, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL if quiet else errors,
                                  timeout=60)
        if check:
            self.assertEqual(done.returncode, 0, self.complaints())

    def complaints(self):
        texts = []
        for name in ("errors", "runc.log", "images/dump.log", "images/restore.log"):
            if os.path.exists(f"{self.base}/{name}"):
                with open(f"{self.base}/{name}", encoding="utf-8", errors="replace") as file:
                    texts.append(f"== {name}\n{file.read()[-2000:]}")
        return "\n".join(texts)

    def start(self, command):
        with open(self.base + "/config.json", encoding="utf-8") as file:
            config = json.load(file)
        config["process"].update(terminal=False, args=["sh", "-c", command])
        config["root"]["readonly"] = False
        for kind in ("user", "cgroup"):
            if {"type": kind} not in config["linux"]["namespaces"]:
                config["linux"]["namespaces"].append({"type": kind})
        mapping = [{"containerID": 0, "hostID": FIRST, "size": COUNT}]
        config["linux"].update(uidMappings=mapping, gidMappings=mapping)
        with open(self.base + "/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        self.addCleanup(self.runc, "delete", "--force", self.name, check=False)
        self.runc("run", "--detach", self.name)

    def state(self):
        done = subprocess.run(["runc", "--root", self.base + "/state", "state", self.name], capture_output=True)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def count(self, more_than):
        """What it has counted to, once that is more than it was."""
        def read():
            if not os.path.exists(self.rootfs + "/count"):
                return 0
            with open(self.rootfs + "/count", encoding="ascii") as file:
                text = file.read().strip()
            return int(text) if text and int(text) > more_than else 0
        return await_(read, f"it does not count on from {more_than}", self)

    def users(self):
        pid = self.state()["pid"]
        with open(f"/proc/{pid}/uid_map", encoding="ascii") as map_file:
            map_text = map_file.read().split()
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            ids = [line.split()[1:] for line in status if line.startswith(("Uid:", "Gid:"))]
        return map_text, ids, os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")

    def test_what_only_the_host_may_give(self):
        self.start(counting("/count"))
        last = self.count(5)
        pid = self.state()["pid"]
        os.setpriority(os.PRIO_PROCESS, pid, -7)
        with open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
            file.write("321")
        self.runc("checkpoint", "--image-path", self.images, "--work-path", self.images, self.name)
        self.runc("restore", "--detach", "--image-path", self.images, "--work-path", self.images, self.name)
        pid = self.state()["pid"]
        self.assertEqual(os.getpriority(os.PRIO_PROCESS, pid), -7)
        with open(f"/proc/{pid}/oom_score_adj", encoding="ascii") as file:
            self.assertEqual(file.read(), "321\n")
        self.count(last)

    def test_three_rounds(self):
        self.start(counting("/count"))
        last = self.count(5)
        before = self.users()
        self.assertEqual(before, (["0", str(FIRST), str(COUNT)], [[str(FIRST)] * 4] * 2, True))
        for _ in range(3):
            self.runc("checkpoint", "--image-path", self.images, "--work-path", self.images, self.name)
            self.assertIsNone(self.state())
            self.runc("restore", "--detach", "--image-path", self.images, "--work-path", self.images, self.name)
            self.assertEqual(self.users(), before, self.complaints())
            last = self.count(last)
            shutil.rmtree(self.images)
        # It is runc's container still, and its root that of its own users.
        self.runc("exec", self.name, "sh", "-c", "test $(cat /proc/1/comm) = sh && echo inside >/made")
        made = os.stat(self.rootfs + "/made")
        self.assertEqual((made.st_uid, made.st_gid), (FIRST, FIRST))


if __name__ == "__main__":
    unittest.main(verbosity=2)
