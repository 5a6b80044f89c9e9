# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of container engines have in common: a root file system, this program as criu, what to wait for."""
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

CRIU = os.environ["CRIU_CLI"]
LIMIT = 30


def counting(path):
    """A loop that counts into a file."""
    return f"i=0; while true; do i=$((i+1)); echo $i >{path}; sleep 0.02; done"


def await_(condition, what, case=None):
    """What is told nobody when it comes about."""
    until = time.monotonic() + LIMIT
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, f"{what}\n{case.complaints() if case else ''}"
        time.sleep(0.005)


class Engine(unittest.TestCase):
    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="criu-live-engine-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.name = os.path.basename(self.base)
        os.makedirs(self.base + "/bin")
        os.symlink(CRIU, self.base + "/bin/criu")
        self.environment = dict(os.environ, PATH=self.base + "/bin:" + os.environ["PATH"])
        self.rootfs = self.base + "/rootfs"
        for directory in ("bin", "proc", "sys", "dev", "tmp", "etc", "run"):
            os.makedirs(f"{self.rootfs}/{directory}")
        shutil.copy(shutil.which("busybox"), self.rootfs + "/bin/busybox")
        for applet in ("sh", "sleep", "cat", "echo"):
            os.symlink("busybox", f"{self.rootfs}/bin/{applet}")

    def add_program(self, path):
        """With all libraries that it needs, at their places."""
        listed = subprocess.run(["ldd", path], stdout=subprocess.PIPE, text=True, check=True).stdout
        for file in [path, *re.findall(r"(/\S+) \(", listed)]:
            place = self.rootfs + file
            os.makedirs(os.path.dirname(place), exist_ok=True)
            shutil.copy(os.path.realpath(file), place)

    def complaints(self):
        return ""


class Redis:
    """A client of a redis, connected all along."""

    def __init__(self, port):
        self.socket = None
        self.port = port
        await_(self.connect, "redis does not answer")

    def connect(self):
        try:
            self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)
            return self.ask("PING") == "+PONG"
        except ConnectionError:
            return False

    def ask(self, *words):
        self.socket.sendall((" ".join(words) + "\r\n").encode())
        answer = b""
        while not answer.endswith(b"\r\n"):
            more = self.socket.recv(4096)
            if not more:
                raise ConnectionResetError("redis has hung up")
            answer += more
        return answer.decode().strip()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
