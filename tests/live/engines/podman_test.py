#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Containers of podman that are checkpointed and restored by podman itself, over runc.

podman_test.py [CASE...]     $CRIU_CLI is the program; as root

Images, containers and all else that podman keeps are below a directory of the test's own."""
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine import Engine, Redis, await_, counting, free_port  # noqa: E402

COUNT = counting("/count")
MISSING = [program for program in ("podman", "runc", "conmon", "busybox") if shutil.which(program) is None]


@unittest.skipIf(MISSING, f"not installed: {MISSING}")
class PodmanCase(Engine):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.assert_nothing_left)
        self.image = "criu-live:1"
        self.add_programs()
        packed = subprocess.Popen(["tar", "-C", self.rootfs, "-c", "."], stdout=subprocess.PIPE)
        self.podman("import", "-", self.image, stdin=packed.stdout)
        packed.stdout.close()
        self.assertEqual(packed.wait(), 0)
        self.addCleanup(self.end_containers)

    def add_programs(self):
        pass

    def end_containers(self):
        # A container that has ended is cleaned up by a process of podman's own, which must not meet its removal.
        for name in self.podman("ps", "--quiet").split():
            self.podman("kill", "--signal", "KILL", name)
            self.podman("wait", "--condition", "exited", name)
        self.podman("rm", "--all", "--force", "--time", "0")

    def podman(self, *arguments, check=True, **more):
        command = ["podman", "--root", self.base + "/store", "--runroot", self.base + "/run", "--tmpdir",
                   self.base + "/tmp", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend",
                   "file", "--runtime", "runc", "--network-config-dir", self.base + "/net"]
        # What outlives it (conmon) must not hold a pipe of ours.
        with open(self.base + "/said", "w+b") as said:
            done = subprocess.run([*command, *arguments], env=self.environment, stdout=said, stderr=subprocess.STDOUT,
                                  timeout=120, stdin=more.pop("stdin", subprocess.DEVNULL), check=False, **more)
            said.seek(0)
            text = said.read().decode(errors="replace")
        if check:
            self.assertEqual(done.returncode, 0, f"{arguments}: {text}\n{self.complaints()}")
        else:
            self.assertNotEqual(done.returncode, 0, text)
        return text

    def complaints(self):
        texts = []
        for directory, _, files in os.walk(self.base + "/store"):
            for name in files:
                if name in ("dump.log", "restore.log"):
                    with open(f"{directory}/{name}", encoding="utf-8", errors="replace") as file:
                        texts.append(f"== {name}\n{file.read()[-2000:]}")
        return "\n".join(texts)

    def assert_nothing_left(self):
        for directory, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
            if f"/{self.name}/" in directory + "/":
                # podman leaves the one that containers were in; who looks after them ends a little after they do.
                await_(lambda path=directory: self.removed(path), f"{directory} is in use")
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            self.assertNotIn(self.base, file.read())

    @staticmethod
    def removed(group):
        try:
            os.rmdir(group)
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False

    def run_container(self, name, *command, network="none", options=()):
        # Whoever may not raise limits cannot give a container those that are usual.
        self.podman("run", "--detach", "--name", name, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
                    "--cgroup-parent", "/" + self.name, "--network", network, *options, self.image, *command)

    def state(self, name):
        return json.loads(self.podman("inspect", name))[0]["State"]

    def count(self, name, more_than):
        def read():
            text = self.podman("exec", name, "cat", "/count").strip()
            return int(text) if text and int(text) > more_than else 0
        return await_(read, f"{name} does not count on from {more_than}", self)


class Podman(PodmanCase):
    def test_five_rounds(self):
        self.run_container("loop", "sh", "-c", COUNT)
        last = 0
        for _ in range(5):
            last = self.count("loop", last)
            self.podman("container", "checkpoint", "loop")
            state = self.state("loop")
            self.assertEqual((state["Status"], state["Checkpointed"]), ("exited", True))
            self.podman("container", "restore", "loop")
            self.assertEqual(self.state("loop")["Status"], "running")
        self.count("loop", last)

    def test_pre_checkpoint(self):
        self.run_container("loop", "sh", "-c", COUNT)
        last = self.count("loop", 0)
        self.podman("container", "checkpoint", "--pre-checkpoint", "loop")
        last = self.count("loop", last)
        self.podman("container", "checkpoint", "--with-previous", "loop")
        self.podman("container", "restore", "loop")
        self.count("loop", last)

    def test_leave_running(self):
        self.run_container("loop", "sh", "-c", COUNT)
        last = self.count("loop", 0)
        self.podman("container", "checkpoint", "--leave-running", "loop")
        self.assertEqual(self.state("loop")["Status"], "running")
        self.count("loop", last)

    def test_archive_under_another_name(self):
        self.run_container("loop", "sh", "-c", "echo of the container >/file; " + COUNT)
        last = self.count("loop", 5)
        archive = self.base + "/archive.tar.gz"
        self.podman("container", "checkpoint", "--export", archive, "loop")
        self.podman("rm", "loop")
        for name in ("one", "two"):
            self.podman("container", "restore", "--import", archive, "--name", name)
            self.assertGreater(self.count(name, last), last)
            self.assertEqual(self.podman("exec", name, "cat", "/file"), "of the container\n")

    def test_terminal(self):
        self.run_container("shell", "sh", "-c", "while read line; do echo got $line >/got; done", options=("--tty",))
        for number in range(2):
            self.podman("container", "checkpoint", "shell")
            self.podman("container", "restore", "shell")
            self.podman("exec", "shell", "sh", "-c", f"echo {number} >/dev/console; test -t 0 </dev/console")
        self.assertEqual(self.podman("logs", "shell").split(), ["0", "1"])

    def test_a_failure_leaves_it_running(self):
        script, config = self.base + "/veto", self.base + "/criu.conf"
        with open(script, "w", encoding="ascii") as file:
            file.write('#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != post-dump ]\n')
        os.chmod(script, 0o755)
        with open(config, "w", encoding="ascii") as file:
            file.write(f"action-script {script}\n")
        self.run_container("loop", "sh", "-c", COUNT, options=("--annotation", f"org.criu.config={config}"))
        last = self.count("loop", 0)
        self.podman("container", "checkpoint", "loop", check=False)
        self.assertIn("post-dump script failed", self.complaints())
        self.assertEqual(self.state("loop")["Status"], "running")
        self.count("loop", last)


class PodmanRedis(PodmanCase):
    def add_programs(self):
        if shutil.which("redis-server") is None:
            self.skipTest("redis-server is not installed")
        self.add_program(shutil.which("redis-server"))

    def test_redis_with_a_client(self):
        port = free_port()
        self.run_container("redis", shutil.which("redis-server"), "--port", str(port), "--save", "", "--dir", "/tmp",
                           network="host")
        client = Redis(port)
        self.assertEqual(client.ask("SET", "key", "kept"), "+OK")
        for number in range(3):
            self.podman("container", "checkpoint", "redis", check=False)
            self.podman("container", "checkpoint", "--tcp-established", "redis")
            client.socket.sendall(b"INCR rounds\r\n")  # while there is nobody to answer
            self.podman("container", "restore", "--tcp-established", "redis")
            self.assertEqual(client.socket.recv(99), f":{number + 1}\r\n".encode())
        self.assertEqual(client.ask("GET", "key").split(), ["$4", "kept"])
        client.socket.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unittest.main(verbosity=2, argv=sys.argv)
