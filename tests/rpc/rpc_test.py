#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The RPC, from a client's side. In a pid namespace of its own; $CRIU_CLI is the program, $RPC_PROTO its messages."""
import ctypes
import errno
import fcntl
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import time
import tty
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from client import Client, REQUEST  # noqa: E402

CRIU = os.environ["CRIU_CLI"]
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class Case(unittest.TestCase):
    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="criu-live-rpc-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.images = self.base + "/images"
        os.mkdir(self.images)
        self.directory = os.open(self.images, os.O_RDONLY)
        self.addCleanup(os.close, self.directory)
        self.tree = None
        self.addCleanup(self.end_tree)

    def end_tree(self):
        if self.tree is not None and alive(self.tree):
            os.kill(self.tree, signal.SIGKILL)
        self.reap()
        self.tree = None

    def reap(self):
        """All that have ended, and wait for the tree to."""
        if self.tree is not None:
            try:
                os.waitpid(self.tree, 0)
            except ChildProcessError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            pass

    def start(self):
        """A tree that answers a signal by counting: it writes one more byte into a file for each."""
        self.counter = self.base + "/counter"
        ready, tell = os.pipe()
        self.tree = os.fork()
        if self.tree == 0:
            try:
                os.setsid()
                null = os.open("/dev/null", os.O_RDWR)
                for number in range(3):
                    os.dup2(null, number)
                file = os.open(self.counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
                os.write(tell, b"y")
                os.dup2(file, 3)
                os.closerange(4, 1000)
                while True:
                    signal.sigwait({signal.SIGUSR1})
                    os.write(3, b".")
            finally:
                os._exit(1)
        os.close(tell)
        self.assertEqual(os.read(ready, 1), b"y")
        os.close(ready)
        return self.tree

    def answers(self):
        """Whether the tree is at work."""
        if not alive(self.tree):
            return False
        before = os.stat(self.counter).st_size
        os.kill(self.tree, signal.SIGUSR1)
        until = time.monotonic() + 20
        while os.stat(self.counter).st_size == before:
            if time.monotonic() > until or not alive(self.tree):
                return False
            time.sleep(0.001)
        return True

    def opts(self, **more):
        return {"images_dir_fd": self.directory, "log_level": 4, "log_file": "work.log", **more}

    def log(self, name="work.log"):
        with open(f"{self.images}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()


class Swrk(Case):
    def client(self, *options, **popen):
        client = Client.swrk(CRIU, *options, **popen)
        self.addCleanup(client.end)
        return client

    def dump(self, client=None, **more):
        client = client or self.client()
        response = client.call("DUMP", self.opts(pid=self.tree, **more))
        return client, response

    def dumped(self):
        self.start()
        client, response = self.dump()
        self.assertTrue(response["success"], response)
        self.assertEqual(response["dump"], {"restored": False})
        self.assertEqual(client.end(), 0)
        self.reap()
        self.assertFalse(alive(self.tree))

    def test_version(self):
        client = self.client()
        for _ in range(2):
            response = client.call("VERSION", keep_open=True)
            self.assertEqual(response, {"type": REQUEST["VERSION"], "success": True,
                                        "version": {"major_number": 4, "minor_number": 2}})
        self.assertEqual(client.call("VERSION")["success"], True)
        self.assertIsNone(client.receive())
        self.assertEqual(client.end(), 0)
        client = self.client()
        client.call("VERSION", keep_open=True)
        self.assertEqual(client.end(), 255)  # another request was awaited

    def test_features(self):
        client = self.client()
        response = client.call("FEATURE_CHECK", features={"mem_track": True, "lazy_pages": True})
        # What of them the kernel has is of no use before there are pre-dumps and lazy pages.
        self.assertEqual(response, {"type": REQUEST["FEATURE_CHECK"], "success": True,
                                    "features": {"mem_track": True, "lazy_pages": False, "pidfd_store": False}})
        self.assertEqual(client.end(), 0)
        response = self.client().call("FEATURE_CHECK")
        self.assertEqual((response["success"], response["cr_errno"]), (False, errno.EBADRQC))

    def test_check(self):
        self.assertEqual(self.client().call("CHECK"), {"type": REQUEST["CHECK"], "success": True})
        response = self.client().call("CHECK", self.opts())
        self.assertTrue(response["success"])
        self.assertIn("Looks good", self.log())

    def test_round_trip(self):
        self.dumped()
        self.assertIn("Dumping finished successfully", self.log())
        client = self.client()
        response = client.call("RESTORE", self.opts(log_file="restore.log"))
        self.assertEqual(response, {"type": REQUEST["RESTORE"], "success": True, "restore": {"pid": self.tree}})
        self.assertEqual(client.end(), 0)
        self.assertTrue(self.answers())
        self.assertIn("Restore finished successfully", self.log("restore.log"))
        with open(f"/proc/{self.tree}/stat", encoding="ascii") as file:
            self.assertEqual(int(file.read().rsplit(")", 1)[1].split()[1]), os.getpid())  # it was adopted
        self.assertEqual(sorted(os.listdir(f"/proc/{self.tree}/fd")), ["0", "1", "2", "3"])

    def test_sibling(self):
        self.dumped()
        client = self.client()
        response = client.call("RESTORE", self.opts(rst_sibling=True))
        self.assertEqual(response["restore"]["pid"], self.tree)
        self.assertTrue(self.answers())
        self.assertEqual(client.end(), 0)
        os.kill(self.tree, signal.SIGTERM)
        self.assertEqual(os.waitpid(self.tree, 0), (self.tree, signal.SIGTERM))
        self.tree = None

    def test_leave_running(self):
        self.start()
        _, response = self.dump(leave_running=True)
        self.assertTrue(response["success"])
        self.assertTrue(self.answers())

    def test_leave_stopped_wins(self):
        self.start()
        _, response = self.dump(leave_running=True, leave_stopped=True)
        self.assertTrue(response["success"])
        with open(f"/proc/{self.tree}/stat", encoding="ascii") as file:
            self.assertEqual(file.read().rsplit(")", 1)[1].split()[0], "T")

    def test_notifications(self):
        self.start()
        client = self.client()
        _, response = self.dump(client, notify_scripts=True)
        self.assertTrue(response["success"], response)
        self.reap()
        self.assertEqual(client.events, [("pre-dump", None), ("query-ext-files", None), ("post-dump", None)])
        client = self.client()
        response = client.call("RESTORE", self.opts(notify_scripts=True, log_file="restore.log"))
        self.assertTrue(response["success"], response)
        self.assertEqual(client.events, [("pre-restore", None), ("post-restore", self.tree), ("pre-resume", None),
                                         ("post-resume", None)])
        self.assertTrue(self.answers())

    def test_vetoes_of_a_dump(self):
        self.start()
        for event in ("pre-dump", "query-ext-files", "post-dump"):
            for answer in (False, None):  # no, and nothing: the client is gone
                with self.subTest(event=event, answer=answer):
                    client = self.client()

                    def notified(script, _fields):
                        if script != event:
                            return True
                        if answer is None:
                            client.socket.shutdown(socket.SHUT_RDWR)
                        return answer

                    client.notified = notified
                    _, response = self.dump(client, notify_scripts=True)
                    if answer is None:
                        self.assertIsNone(response)
                    else:
                        self.assertFalse(response["success"])
                        self.assertIn("RPC client reported script error", response["cr_errmsg"])
                    self.assertNotEqual(client.end(), 0)
                    self.assertTrue(self.answers())

    def test_vetoes_of_a_restore(self):
        self.dumped()
        for event in ("pre-restore", "post-restore"):
            for answer in (False, None):
                with self.subTest(event=event, answer=answer):
                    client = self.client()

                    def notified(script, _fields):
                        if script != event:
                            return True
                        if answer is None:
                            client.socket.shutdown(socket.SHUT_RDWR)
                        return answer

                    client.notified = notified
                    response = client.call("RESTORE", self.opts(notify_scripts=True))
                    if answer is not None:
                        self.assertFalse(response["success"])
                        self.assertEqual(response["restore"], {"pid": -1})
                    self.assertNotEqual(client.end(), 0)
                    self.reap()
                    self.assertFalse(alive(self.tree))

    def test_external_files_are_asked_for(self):
        """What the client says then counts as if it had been an option: wrong words are an error."""
        self.start()
        client = self.client()
        client.notified = lambda script, _: {"external": ["mnt[]:?"]} if script == "query-ext-files" else True
        _, response = self.dump(client, notify_scripts=True)
        self.assertFalse(response["success"])
        self.assertIn("mnt[]:?", response["cr_errmsg"])
        self.assertTrue(self.answers())

    def test_errors(self):
        self.start()
        gone = subprocess.Popen(["true"])
        gone.wait()
        client = self.client()
        response = client.call("DUMP", self.opts(pid=gone.pid))
        self.assertEqual((response["success"], response["cr_errno"]), (False, errno.ESRCH))
        self.assertRegex(response["cr_errmsg"], r"^Error \(\w+\.cpp:\d+\): .*\n$")
        self.assertEqual(client.end(), 1)
        self.dump(leave_running=True)
        client = self.client()
        response = client.call("RESTORE", self.opts())
        self.assertEqual((response["success"], response["cr_errno"]), (False, errno.EEXIST))
        self.assertIn("pid is taken", response["cr_errmsg"])
        self.assertEqual(client.end(), 1)
        self.assertTrue(self.answers())

    def test_bad_options(self):
        self.start()
        wrong = [({"images_dir_fd": -1}, "Neither images_dir_fd nor images_dir"),
                 ({"images_dir_fd": 999}, "images_dir_fd 999"),
                 ({"log_file": "a/b"}, "No subdirs are allowed in log_file name"),
                 ({"empty_ns": 1}, "only the network namespace"),
                 ({"auto_dedup": True, "lazy_pages": True}, "--auto-dedup, --lazy-pages: not supported"),
                 ({"ps": {"port": 1}}, "--page-server: not supported"),
                 ({"external": ["mnt[]:?"]}, "mnt[]:?")]
        for opts, says in wrong:
            with self.subTest(opts):
                client = self.client()
                response = client.call("DUMP", self.opts(**{"pid": self.tree, **opts}))
                self.assertEqual((response["success"], response["cr_errno"]), (False, errno.EBADRQC), response)
                self.assertIn(says, response["cr_errmsg"])
                self.assertTrue(self.answers())
        response = self.client().call("DUMP")
        self.assertEqual((response["success"], response["cr_errno"]), (False, errno.EBADRQC))

    def test_what_is_not_there(self):
        for kind in ("PAGE_SERVER", "PAGE_SERVER_CHLD", "CPUINFO_DUMP", "CPUINFO_CHECK"):
            with self.subTest(kind):
                response = self.client().call(kind, self.opts())
                self.assertEqual(response["type"], REQUEST["PAGE_SERVER" if kind == "PAGE_SERVER_CHLD" else kind])
                self.assertIn("not supported by this version yet", response["cr_errmsg"])
                self.assertFalse(response["success"])

    def round_directory(self, name):
        path = f"{self.images}/{name}"
        os.mkdir(path)
        descriptor = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def assert_pre_dump(self, name):
        files = os.listdir(f"{self.images}/{name}")
        self.assertIn(f"pagemap-{self.tree}.img", files)
        self.assertNotIn(f"core-{self.tree}.img", files)
        self.assertTrue(self.answers())

    def test_pre_dumps_and_a_dump(self):
        self.start()
        client = self.client()
        for number, kind in enumerate(("PRE_DUMP", "PRE_DUMP", "DUMP")):
            opts = {"images_dir_fd": self.round_directory(str(number)), "pid": self.tree, "track_mem": True,
                    "log_file": "work.log"}
            if number > 0:
                opts["parent_img"] = f"../{number - 1}"
            response = client.call(kind, self.opts(**opts))
            self.assertTrue(response["success"], response)
            self.assertEqual(response["type"], REQUEST[kind])
            if kind == "PRE_DUMP":
                self.assert_pre_dump(str(number))
            else:
                self.reap()
        self.assertEqual(client.end(), 0)
        self.assertEqual(os.readlink(self.images + "/2/parent"), "../1")
        self.assertFalse(self.client().call("RESTORE", self.opts(images_dir_fd=self.round_directory("x")))["success"])
        last = os.open(self.images + "/2", os.O_RDONLY)
        self.addCleanup(os.close, last)
        response = self.client().call("RESTORE", self.opts(images_dir_fd=last, rst_sibling=True))
        self.assertTrue(response["success"], response)
        self.assertTrue(self.answers())

    def test_a_pre_dump_alone(self):
        self.start()
        client = self.client()
        opts = self.opts(images_dir_fd=self.round_directory("0"), pid=self.tree)
        response = client.call("SINGLE_PRE_DUMP", opts)
        self.assertEqual((response["type"], response["success"]), (REQUEST["SINGLE_PRE_DUMP"], True))
        self.assert_pre_dump("0")
        self.assertEqual(client.end(), 0)
        response = self.client().call("RESTORE", opts)
        self.assertFalse(response["success"])
        self.assertTrue(self.answers())

    def test_pre_dumps_that_fail(self):
        self.start()
        client = self.client()
        response = client.call("PRE_DUMP", self.opts(pid=self.tree, parent_img="nowhere"))
        self.assertFalse(response["success"])
        self.assertIn("--prev-images-dir nowhere", response["cr_errmsg"])
        client = self.client()
        self.assertTrue(client.call("PRE_DUMP", self.opts(pid=self.tree))["success"])
        response = client.call("CHECK")
        self.assertEqual((response["type"], response["success"]), (REQUEST["EMPTY"], False))
        self.assertIn("Bad req seq", response["cr_errmsg"])
        self.assertTrue(self.answers())

    def test_nonsense(self):
        client = self.client()
        response = client.call("EMPTY")
        self.assertEqual((response["type"], response["success"]), (REQUEST["EMPTY"], False))
        self.assertEqual(client.end(), 255)
        client = self.client()
        client.socket.send(b"\xff\xff\xff\xff no message")
        self.assertIsNone(client.receive())
        self.assertEqual(client.end(), 255)
        client = self.client()
        self.assertIsNone(client.call("DUMP", self.opts(pid=1), keep_open=True))
        self.assertEqual(client.end(), 255)
        self.assertEqual(self.client().end(), 255)

    def test_wait(self):
        """Of a child of the worker, which nobody has here: an error."""
        response = self.client().call("WAIT_PID", pid=1)
        self.assertEqual((response["type"], response["success"]), (REQUEST["WAIT_PID"], False))

    def test_config_file(self):
        self.start()
        config, other = self.base + "/config", self.base + "/other"
        os.mkdir(other)
        with open(config, "w", encoding="ascii") as file:
            file.write(f"work-dir {other}\nlog-file from-config.log\nleave-running\nverbosity=0\n")
        _, response = self.dump(config_file=config)
        self.assertTrue(response["success"], response)
        self.assertTrue(self.answers())
        self.assertTrue(os.path.exists(other + "/from-config.log"))
        self.assertTrue(os.path.exists(other + "/stats-dump"))
        with open(other + "/from-config.log", encoding="utf-8") as file:
            self.assertIn("Dumping finished", file.read())  # log_level of the request counts
        _, response = self.dump(config_file=self.base + "/not-there", leave_running=True)
        self.assertTrue(response["success"], response)
        with open(config, "w", encoding="ascii") as file:
            file.write("no-such-option\n")
        _, response = self.dump(config_file=config)
        self.assertEqual(response["cr_errno"], errno.EBADRQC)
        self.assertTrue(self.answers())

    def test_options_of_the_worker(self):
        self.start()
        client = self.client("-R", "--action-script", f"sh -c 'true'")
        _, response = self.dump(client)
        self.assertFalse(response["success"])  # the script is no program
        script = self.base + "/script"
        with open(script, "w", encoding="ascii") as file:
            file.write(f"#!/bin/sh\necho $CRTOOLS_SCRIPT_ACTION >>{self.base}/events\n")
        os.chmod(script, 0o755)
        _, response = self.dump(self.client("-R", "--action-script", script))
        self.assertTrue(response["success"], response)
        self.assertTrue(self.answers())
        with open(self.base + "/events", encoding="ascii") as file:
            self.assertEqual(file.read().split(), ["pre-dump", "post-dump"])

    def test_work_dir_and_log(self):
        self.start()
        other = self.base + "/other"
        os.mkdir(other)
        directory = os.open(other, os.O_RDONLY)
        self.addCleanup(os.close, directory)
        _, response = self.dump(work_dir_fd=directory, leave_running=True)
        self.assertTrue(response["success"])
        self.assertEqual(sorted(os.listdir(other)), ["stats-dump", "work.log"])
        client = self.client(stderr=subprocess.PIPE, text=True)
        opts = self.opts(pid=self.tree, leave_running=True, log_to_stderr=True)
        del opts["log_file"]
        self.assertTrue(client.call("DUMP", opts)["success"])
        self.assertEqual(client.worker.wait(), 0)
        self.assertIn("Dumping finished", client.worker.stderr.read())
        client.worker.stderr.close()

    def test_exec_cmd(self):
        self.dumped()
        client = self.client()
        command = ["sh", "-c", f"echo said; ls /proc/self/fd >{self.base}/fds; echo $PPID >{self.base}/parent; "
                               f"ps -o pid= --ppid $$ >{self.base}/children"]
        response = client.call("RESTORE", self.opts(exec_cmd=command))
        self.assertTrue(response["success"], response)
        self.assertIsNone(client.receive())
        self.assertEqual(client.end(), 0)
        self.assertIn("said", self.log())
        with open(self.base + "/parent", encoding="ascii") as file:
            self.assertEqual(int(file.read()), os.getpid())
        with open(self.base + "/children", encoding="ascii") as file:
            self.assertIn(str(self.tree), file.read().split())  # the worker became the command, and their parent
        self.assertTrue(self.answers())

    def test_inherited_descriptor(self):
        """A pipe of the tree from the client, by the number that it has in the worker."""
        self.start()
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.end_tree()
        ready, tell = os.pipe()
        self.tree = os.fork()
        if self.tree == 0:
            os.setsid()
            null = os.open("/dev/null", os.O_RDWR)
            for number in (0, 2):
                os.dup2(null, number)
            os.dup2(writer, 1)
            os.write(tell, b"y")
            os.closerange(3, 1000)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
            while True:
                signal.sigwait({signal.SIGUSR1})
                os.write(1, b"x")
        os.read(ready, 1)
        os.close(ready), os.close(tell)
        name = os.readlink(f"/proc/{self.tree}/fd/1")
        _, response = self.dump()
        self.assertTrue(response["success"], response)
        self.reap()
        os.close(writer)
        self.assertEqual(os.read(reader, 1), b"")
        again, other = os.pipe()
        self.addCleanup(os.close, again)
        client = self.client(pass_fds=[other])
        response = client.call("RESTORE", self.opts(inherit_fd=[{"key": name, "fd": other}]))
        self.assertTrue(response["success"], response)
        os.close(other)
        os.kill(self.tree, signal.SIGUSR1)
        self.assertEqual(os.read(again, 1), b"x")

    def start_on_terminal(self):
        """A session on a pty of ours, which answers each line."""
        master, slave = pty.openpty()
        tty.setraw(slave)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
        self.tree = os.fork()
        if self.tree == 0:
            try:
                os.setsid()
                fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
                for number in range(3):
                    os.dup2(slave, number)
                os.closerange(3, 1000)
                while True:
                    line = os.read(0, 99)
                    os.write(1, b"got " + line + (b", in front" if os.tcgetpgrp(0) == os.getpgrp() else b""))
            finally:
                os._exit(1)
        os.close(slave)
        os.write(master, b"first")
        self.assertEqual(os.read(master, 99), b"got first, in front")
        return master

    def dump_on_terminal(self):
        master = self.start_on_terminal()
        _, response = self.dump(orphan_pts_master=True)
        self.assertTrue(response["success"], response)
        self.reap()
        os.close(master)  # whose number the new one gets

    def test_a_terminal_whose_master_is_outside(self):
        self.dump_on_terminal()
        client = self.client()
        response = client.call("RESTORE", self.opts(orphan_pts_master=True, notify_scripts=True, rst_sibling=True))
        self.assertTrue(response["success"], response)
        names = [name for name, _ in client.events]
        self.assertEqual(names.count("orphan-pts-master"), 1)
        self.assertLess(names.index("orphan-pts-master"), names.index("post-restore"))
        (master,) = client.descriptors
        self.assertEqual(fcntl.ioctl(master, termios.TIOCGWINSZ, b"\0" * 8)[:4], struct.pack("HH", 33, 99))
        os.write(master, b"second")
        self.assertEqual(os.read(master, 99), b"got second, in front")
        os.close(master)  # the session is told that its terminal is gone
        os.waitpid(self.tree, 0)

    def test_a_terminal_that_the_client_does_not_want(self):
        self.dump_on_terminal()
        client = self.client(stdin=subprocess.DEVNULL, start_new_session=True)
        client.notified = lambda script, fields: script != "orphan-pts-master"
        response = client.call("RESTORE", self.opts(orphan_pts_master=True, notify_scripts=True))
        self.assertFalse(response["success"])
        self.assertIn("--shell-job", response["cr_errmsg"])
        for descriptor in client.descriptors:
            os.close(descriptor)

    def test_a_terminal_whose_master_is_outside_is_named(self):
        master = self.start_on_terminal()
        _, response = self.dump()
        self.assertFalse(response["success"])
        self.assertIn("the terminal's master is outside of the tree", response["cr_errmsg"])
        os.write(master, b"third")
        self.assertEqual(os.read(master, 99), b"got third, in front")
        os.close(master)

    def test_without_standard_descriptors(self):
        self.start()

        def close():
            os.closerange(0, 3)

        _, response = self.dump(self.client(preexec_fn=close, stdin=None), leave_running=True)
        self.assertTrue(response["success"], response)
        self.assertTrue(self.answers())

    def test_a_directory_without_a_name(self):
        self.start()
        os.rename(self.images, self.base + "/moved")
        os.symlink("moved", self.images)
        _, response = self.dump(leave_running=True)
        self.assertTrue(response["success"], response)
        self.assertIn("inventory.img", os.listdir(self.directory))


class Service(Case):
    def setUp(self):
        super().setUp()
        self.path = self.base + "/socket"
        reader, writer = os.pipe()
        self.service = subprocess.Popen(
            [CRIU, "service", "--address", self.path, "--pidfile", self.base + "/pidfile", "--status-fd", str(writer),
             "-W", self.base, "-o", "service.log", "-v4", "-R"], pass_fds=[writer])
        os.close(writer)
        self.addCleanup(self.stop)
        self.assertEqual(os.read(reader, 1), b"\0", self.service_log())
        os.close(reader)

    def stop(self):
        self.service.terminate()
        self.service.wait()

    def service_log(self):
        with open(self.base + "/service.log", encoding="utf-8") as file:
            return file.read()

    def client(self):
        client = Client.connect(self.path)
        self.addCleanup(client.end)
        return client

    def test_round_trip(self):
        with open(self.base + "/pidfile", encoding="ascii") as file:
            self.assertEqual(int(file.read()), self.service.pid)
        self.start()
        response = self.client().call("DUMP", self.opts(pid=self.tree, notify_scripts=True))
        self.assertTrue(response["success"], response)
        self.reap()
        self.assertFalse(alive(self.tree))  # -R was for the service alone
        self.assertIn("Dumping finished", self.log())
        response = self.client().call("RESTORE", self.opts())
        self.assertTrue(response["success"], response)
        self.assertTrue(self.answers())
        self.assertIn("exited with 0", self.service_log())

    def test_many_at_once(self):
        clients = [self.client() for _ in range(5)]
        for client in clients:
            self.assertTrue(client.call("VERSION", keep_open=True)["success"])
        for client in reversed(clients):
            self.assertTrue(client.call("VERSION")["success"])
        self.assertIsNone(clients[0].receive())

    def test_what_only_a_child_can_ask_for(self):
        self.start()
        for opts in ({"rst_sibling": True}, {"inherit_fd": [{"key": "x", "fd": 1}]}, {"ps": {"fd": 1}}):
            with self.subTest(opts):
                response = self.client().call("RESTORE", self.opts(**opts))
                self.assertEqual((response["success"], response["cr_errno"]), (False, errno.EBADRQC))
                self.assertIn("swrk", response["cr_errmsg"])

    def test_others_are_not_served(self):
        self.start()
        os.chmod(self.base, 0o755)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setgid(65534)
            os.setuid(65534)
            client = Client.connect(self.path)
            try:
                served = client.call("VERSION") is not None
            except OSError:
                served = False
            os.write(writer, b"y" if served else b"n")
            os._exit(0)
        os.close(writer)
        self.assertEqual(os.read(reader, 1), b"n")
        os.close(reader)
        os.waitpid(pid, 0)

    def test_in_the_background(self):
        path, pidfile = self.base + "/second", self.base + "/second-pid"
        done = subprocess.run([CRIU, "service", "-d", "--address", path, "--pidfile", pidfile, "-W", self.base,
                               "-o", "second.log"], stdin=subprocess.DEVNULL, check=True, timeout=20)
        self.assertEqual(done.returncode, 0)
        client = Client.connect(path)
        self.addCleanup(client.end)
        self.assertTrue(client.call("VERSION")["success"])
        with open(pidfile, encoding="ascii") as file:
            pid = int(file.read())
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
