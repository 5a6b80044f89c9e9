#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Containers of runc that are checkpointed and restored by runc itself, which finds this suite in CRIU's place.

runc_test.py [CASE...]     $CRIU_CLI is the program; as root
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine import Engine, LIMIT, Redis, await_, counting, free_port  # noqa: E402

COUNT = counting("/count")


@unittest.skipIf(shutil.which("runc") is None or shutil.which("busybox") is None, "runc or busybox is not installed")
class Runc(Engine):
    def setUp(self):
        super().setUp()
        self.runc("spec")
        self.images = self.base + "/images"

    def runc(self, *arguments, check=True):
        # What a container keeps of its output would be a pipe to this test, or a file from outside.
        with open(self.base + "/errors", "w+b") as errors:
            command = ["runc", "--root", self.base + "/state", "--log", self.base + "/runc.log", *arguments]
            done = subprocess.run(command,
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

    def start(self, command, annotations=None, terminal=False, network=True, options=()):
        with open(self.base + "/config.json", encoding="utf-8") as file:
            config = json.load(file)
        config["process"].update(terminal=terminal, args=["sh", "-c", command])
        config["root"]["readonly"] = False
        config["annotations"] = annotations or {}
        config["mounts"].append({"destination": "/data", "source": self.base + "/data", "type": "bind",
                                 "options": ["rbind", "rw"]})
        if not network:
            config["linux"]["namespaces"] = [ns for ns in config["linux"]["namespaces"] if ns["type"] != "network"]
        os.makedirs(self.base + "/data", exist_ok=True)
        with open(self.base + "/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        self.addCleanup(self.runc, "delete", "--force", self.name, check=False)
        self.runc("run", "--detach", *options, self.name)

    def state(self):
        done = subprocess.run(["runc", "--root", self.base + "/state", "state", self.name], capture_output=True)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def count(self, more_than):
        """What it has counted to, once that is more than it was."""
        def read():
            try:
                with open(self.rootfs + "/count", encoding="ascii") as file:
                    text = file.read().strip()
            except FileNotFoundError:
                return 0
            return int(text) if text and int(text) > more_than else 0
        return await_(read, f"it does not count on from {more_than}", self)

    def checkpoint(self, *options, check=True):
        return self.runc("checkpoint", "--image-path", self.images, "--work-path", self.images, *options, self.name,
                         check=check)

    def restore(self, *options, name=None):
        self.runc("restore", "--detach", "--image-path", self.images, "--work-path", self.images, *options,
                  name or self.name)

    def test_five_rounds(self):
        self.start(COUNT)
        last = self.count(5)
        for _ in range(5):
            self.checkpoint()
            self.assertIsNone(self.state())
            with open(self.rootfs + "/count", encoding="ascii") as file:
                at = int(file.read() or last)  # a shell empties a file before it writes
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

    def test_pre_dump_and_parent(self):
        self.start(COUNT)
        last = self.count(5)
        parent = self.base + "/images-before"
        self.runc("checkpoint", "--pre-dump", "--image-path", parent, "--work-path", parent, self.name)
        last = self.count(last)
        self.checkpoint("--parent-path", "../images-before")
        self.assertEqual(os.readlink(self.images + "/parent"), "../images-before")
        self.restore()
        self.count(last)

    def test_another_name(self):
        self.start(COUNT)
        last = self.count(5)
        self.checkpoint()
        other = self.name + "-2"
        self.addCleanup(self.runc, "delete", "--force", other, check=False)
        self.restore(name=other)
        self.assertIsNone(self.state())
        self.count(last)

    def test_redis_with_a_client(self):
        if shutil.which("redis-server") is None:
            self.skipTest("redis-server is not installed")
        self.add_program(shutil.which("redis-server"))
        port = free_port()
        self.start(f"cd /tmp && exec {shutil.which('redis-server')} --port {port} --save '' --logfile /tmp/log",
                   network=False)
        client = Redis(port)
        self.assertEqual(client.ask("SET", "key", "kept"), "+OK")
        for number in range(5):
            self.assertNotEqual(self.checkpoint(check=False), 0)
            self.assertIn("--tcp-established", self.complaints())
            shutil.rmtree(self.images)
            self.checkpoint("--tcp-established")
            client.socket.sendall(b"INCR rounds\r\n")  # while there is nobody to answer
            self.restore("--tcp-established")
            self.assertEqual(client.socket.recv(99), f":{number + 1}\r\n".encode())
            shutil.rmtree(self.images)
        self.assertEqual(client.ask("GET", "key").split(), ["$4", "kept"])
        client.socket.close()

    def take_console(self, path):
        """The terminal of the container that is started next, which its engine sends there."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
        listener.settimeout(LIMIT)

        def terminal():
            connection, _ = listener.accept()
            with listener, connection:
                _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
            return descriptors[0]
        return terminal

    def read_line(self, terminal):
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(terminal, 1)
        return line.strip().decode()

    def test_terminal(self):
        first = self.take_console(self.base + "/first")
        self.start("while read line; do echo got $line; done", terminal=True,
                   options=("--console-socket", self.base + "/first"))
        terminal = first()
        os.write(terminal, b"one\n")
        self.assertEqual([self.read_line(terminal) for _ in range(2)], ["one", "got one"])
        for number in range(3):
            self.checkpoint()
            self.assertRaises(OSError, os.read, terminal, 1)
            os.close(terminal)
            path = f"{self.base}/console-{number}"
            again = self.take_console(path)
            self.restore("--console-socket", path)
            terminal = again()
            os.write(terminal, b"more\n")
            self.assertEqual([self.read_line(terminal) for _ in range(2)], ["more", "got more"])
            shutil.rmtree(self.images)
        self.runc("exec", self.name, "sh", "-c", "echo to the console >/dev/console")
        self.assertEqual(self.read_line(terminal), "to the console")
        os.close(terminal)

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
        self.start(COUNT, annotations={"org.criu.config": config})
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
