#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A restore of a container that fails leaves nothing: no task, mount, link or control group, wherever it fails.

faults_test.py [CASE...]     $CRIU_CLI is the program; as root

What is outside of the container is a network, mount and pid namespace of the test's own, so that nothing else comes
and goes there."""
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

CRIU = os.environ["CRIU_CLI"]
INSIDE = "CRIU_FAULTS_INSIDE"
LIMIT = 30
ENVIRONMENT = {"PATH": "/bin:/usr/bin:/sbin:/usr/sbin"}
EVENTS = ("pre-restore", "setup-namespaces", "post-setup-namespaces", "post-restore", "pre-resume", "network-unlock")
# Ten mounts and more, each kind that is made in a way of its own.
START = """set -e
mount --bind "$1" "$1"; cd "$1"
mount -t proc proc proc; mount -t tmpfs -o size=1m shm shm; echo contents >shm/file; mount -t tmpfs shared shared
mount --make-shared shared; mkdir shared/deep; mount -t tmpfs deep shared/deep; mount --bind shared slave
mount --make-slave slave; mkdir shm/part; mount --bind shm/part part; mount -o remount,bind,ro part
mount -t tmpfs covered covered; echo below >covered/file; mount -t tmpfs cover covered
mount --bind /usr/share given; mount -t mqueue mqueue mqueue
pivot_root . old
exec /bin/chroot . /bin/sh -c '/bin/umount -l /old; ip link set lo up
  while ! ip link show eth1; do sleep 0.01; done
  ip addr add 10.9.8.1/24 dev eth0; ip addr add 10.9.9.1/24 dev eth1; ip link set eth0 up; ip link set eth1 up
  for i in 1 2 3 4 5; do sleep 1000 & done; echo $$ >/ready; wait' >/dev/null 2>&1 </dev/null
"""


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def hierarchies():
    """Of which groups are made: one of version 1 and that of version 2."""
    found = {}
    for line in text_of("/proc/self/mountinfo").splitlines():
        point, kind = line.split()[4], line.split(" - ")[1].split()
        if kind[0] == "cgroup2":
            found["unified"] = point
        elif kind[0] == "cgroup" and "pids" in kind[2].split(","):
            found["pids"] = point
    return list(found.values())


class Faults(unittest.TestCase):
    first_user = 0  # who root of the container is outside

    @classmethod
    def setUpClass(cls):
        cls.base = tempfile.mkdtemp(prefix="criu-live-faults-")
        cls.name = os.path.basename(cls.base)
        cls.addClassCleanup(shutil.rmtree, cls.base)
        cls.addClassCleanup(cls.remove_groups)
        cls.groups = [f"{top}/{cls.name}{below}" for top in hierarchies() for below in ("", "/a", "/b")]
        cls.images = cls.base + "/images"
        os.mkdir(cls.images)
        cls.empty = cls.state()
        cls.checkpoint()
        # The outer ends go with the inner ones, after who made the namespace.
        cls.await_(lambda: cls.state() == cls.empty)

    @classmethod
    def state(cls):
        """All that a restore could leave."""
        mounts = [line.split(" ", 2)[2] for line in text_of("/proc/self/mountinfo").splitlines()]
        links = cls.links()
        groups = [group for group in cls.groups if os.path.isdir(group)]
        tasks = [pid for pid in os.listdir("/proc") if pid.isdigit()]
        firewall = subprocess.run(["nft", "list", "ruleset"], stdout=subprocess.PIPE, text=True, check=True).stdout
        return mounts, links, groups, tasks, firewall

    @classmethod
    def remove_groups(cls):
        for group in reversed(cls.groups):
            if os.path.isdir(group):
                os.rmdir(group)

    @classmethod
    def checkpoint(cls):
        root = cls.base + "/root"
        for name in "bin proc shm shared slave part covered given mqueue old sys dev".split():
            os.makedirs(f"{root}/{name}")
        shutil.copy(shutil.which("busybox"), root + "/bin/busybox")
        for applet in ("sh", "sleep", "chroot", "umount", "ip"):
            os.symlink("busybox", f"{root}/bin/{applet}")
        os.mknod(root + "/dev/null", 0o666 | 0o020000, os.makedev(1, 3))
        os.chmod(root + "/dev/null", 0o666)
        for group in cls.groups:
            os.mkdir(group)
        os.chmod(cls.base, 0o755)
        os.chown(root, cls.first_user, cls.first_user)
        starter = cls.start(["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--propagation",
                             "private", "setsid", "sh", "-c", START, "sh", root])
        init = cls.await_child(starter.pid)
        for i in (0, 1):
            subprocess.run(["ip", "link", "add", f"outer{i}", "type", "veth", "peer", "name", f"eth{i}", "netns",
                            str(init)], check=True)
        # A shell keeps its output aside while it writes to a file.
        cls.await_(lambda: os.path.exists(root + "/ready") and len(os.listdir(f"/proc/{init}/fd")) == 3)
        tasks = [init, *map(int, text_of(f"/proc/{init}/task/{init}/children").split())]
        for task, group in zip(tasks, [cls.groups[0], cls.groups[1], cls.groups[2], *cls.groups[3:]]):
            with open(group + "/cgroup.procs", "w", encoding="ascii") as file:
                file.write(str(task))
        done = subprocess.run([CRIU, "dump", "-t", str(init), "-D", cls.images, "-v4", "-o", "dump.log", "--external",
                               "mnt[/given]:given", "--external", "veth[eth0]:outer0", "--external",
                               "veth[eth1]:outer1"], stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 0, done.stderr + text_of(cls.images + "/dump.log")
        starter.wait()
        cls.reap()
        cls.remove_groups()

    @classmethod
    def start(cls, command):
        return subprocess.Popen(command, env=ENVIRONMENT)

    @staticmethod
    def await_(condition):
        """Of what tells nobody of itself."""
        until = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.002)

    @classmethod
    def await_child(cls, pid):
        children = f"/proc/{pid}/task/{pid}/children"
        cls.await_(lambda: text_of(children))
        return int(text_of(children).split()[0])

    @staticmethod
    def reap():
        """All that was started, whose end is certain."""
        signal.alarm(LIMIT)
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            signal.alarm(0)

    def restore(self, *options, images=None, kill_after=None):
        images = images or self.images
        pidfile = self.base + "/pid"
        if os.path.exists(pidfile):
            os.unlink(pidfile)
        process = subprocess.Popen([CRIU, "restore", "-d", "-D", images, "-v4", "-o", self.base + "/restore.log",
                                    "--root", self.base + "/root", "--pidfile", pidfile, "--manage-cgroups",
                                    "--external", "mnt[given]:/usr/share", "--external", "veth[eth0]:outer0",
                                    "--external", "veth[eth1]:outer1", *options], stderr=subprocess.DEVNULL)
        if kill_after is not None:
            try:
                process.wait(kill_after)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait(LIMIT), pidfile

    def root_pid(self, pidfile):
        """Of a restored tree; 0: there is none."""
        text = text_of(pidfile) if os.path.exists(pidfile) else ""
        return int(text) if text else 0

    def end_tree(self, pid):
        os.kill(pid, signal.SIGKILL)
        self.reap()
        self.remove_groups()

    def assert_nothing_left(self, what, ended=True):
        """`ended`: a tree did, or a restore was killed, so that the kernel removes the links when it gets to it."""
        self.reap()
        if ended:
            self.await_(lambda: self.links() == self.empty[1])
        self.assertEqual(self.state(), self.empty, what)

    @staticmethod
    def links():
        return sorted(name for _, name in socket.if_nameindex())

    def script(self, event, action):
        path = self.base + "/script"
        with open(path, "w", encoding="ascii") as file:
            file.write(f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != {event} ] || {action}\n')
        os.chmod(path, 0o755)
        return "--action-script", path

    # ---- cases ----

    def test_without_a_fault(self):
        for _ in range(2):
            code, pidfile = self.restore()
            self.assertEqual(code, 0, text_of(self.base + "/restore.log"))
            pid = self.root_pid(pidfile)
            self.assertEqual(len(text_of(f"/proc/{pid}/task/{pid}/children").split()), 5)
            self.assertGreaterEqual(len(text_of(f"/proc/{pid}/mountinfo").splitlines()), 11)
            self.assertEqual([group for group in self.groups if os.path.isdir(group)], self.groups)
            self.assertEqual(self.links(), ["lo", "outer0", "outer1"])
            addresses = subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", "-o", "address"], text=True,
                                       stdout=subprocess.PIPE, check=True).stdout
            self.assertIn("10.9.8.1/24", addresses)
            self.assertIn("10.9.9.1/24", addresses)
            self.end_tree(pid)
            self.assert_nothing_left("a container that has ended")

    def test_vetoes(self):
        for event in EVENTS:
            code, pidfile = self.restore(*self.script(event, "exit 1"))
            if code == 0:  # it is too late for that
                self.assertIn(event, ("network-unlock", "pre-resume"))
                self.end_tree(self.root_pid(pidfile))
            self.assert_nothing_left(f"a veto at {event}", ended=code == 0)

    def test_killed_by_scripts(self):
        for event in EVENTS:
            code, pidfile = self.restore(*self.script(event, "kill -9 $PPID"))
            self.assertEqual(code, -signal.SIGKILL)
            self.assert_nothing_left(f"killed at {event}")

    def test_killed_at_any_moment(self):
        start = time.monotonic()
        code, pidfile = self.restore()
        whole = time.monotonic() - start
        self.assertEqual(code, 0)
        self.end_tree(self.root_pid(pidfile))
        points, killed = 60, 0
        for point in range(points):
            code, pidfile = self.restore(kill_after=whole * point / points)
            killed += code != 0
            pid = self.root_pid(pidfile)
            if pid != 0:
                # As a whole, or about to end with the restore.
                try:
                    self.end_tree(pid)
                except ProcessLookupError:
                    pass
            self.assert_nothing_left(f"killed at {point}/{points}")
        self.assertGreater(killed, points / 3)

    def test_images_missing_or_cut(self):
        names = sorted(os.listdir(self.images))
        copy = self.base + "/damaged"
        failures = 0
        for name in names:
            if not name.endswith(".img"):
                continue
            for size in (None, 0, 0.5):
                shutil.copytree(self.images, copy)
                if size is None:
                    os.unlink(f"{copy}/{name}")
                else:
                    os.truncate(f"{copy}/{name}", int(os.path.getsize(f"{copy}/{name}") * size))
                code, pidfile = self.restore(images=copy)
                shutil.rmtree(copy)
                self.assertIn(code, (0, 1), f"{name} cut to {size}")
                failures += code
                if code == 0:  # images of what there is none may be missing
                    self.end_tree(self.root_pid(pidfile))
                self.assert_nothing_left(f"{name} cut to {size}", ended=code == 0)
        self.assertGreater(failures, len(names))


class FaultsOfUsers(Faults):
    """The same of a container that has users of its own."""
    first_user = 300000

    @classmethod
    def start(cls, command):
        # Who makes the namespace is nobody in it, and so has no rights once it runs another program.
        with subprocess.Popen(["unshare", "--user", "sh", "-c", "echo; read end"], env=ENVIRONMENT,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            holder.stdout.readline()
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{holder.pid}/{name}", "w", encoding="ascii") as file:
                    file.write(f"0 {cls.first_user} 65536")
            starter = super().start(["nsenter", "--user", "--target", str(holder.pid), "--setuid", "0", "--setgid", "0",
                                     *command])
            cls.await_child(starter.pid)
        return starter


if __name__ == "__main__":
    if shutil.which("busybox") is None:
        print("SKIPPED: busybox is not installed")
        sys.exit(77)
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child",
                              sys.executable, *sys.argv])
    unittest.main(verbosity=2, argv=sys.argv)
