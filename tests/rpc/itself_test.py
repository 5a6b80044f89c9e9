#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Programs that ask for a checkpoint of themselves over the RPC. In a pid namespace of its own; $CRIU_CLI is the
program, $RPC_PROTO its messages, $CRIT shows images."""
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import rpc_test  # noqa: E402
from client import Client, REQUEST, stand_alone  # noqa: E402

CRIU = os.environ["CRIU_CLI"]
RESTORED = {"type": REQUEST["DUMP"], "success": True, "dump": {"restored": True}}
SURVIVED = {"type": REQUEST["DUMP"], "success": True, "dump": {"restored": False}}


class Itself(rpc_test.Case):
    """The program asks, notes all answers until the other end hangs up, counts for each SIGUSR1, and asks again when
    SIGUSR2 comes."""

    def setUp(self):
        super().setUp()
        self.counter, self.notes, self.workers = (f"{self.base}/{name}" for name in ("counter", "notes", "workers"))
        for path in (self.counter, self.notes, self.workers):
            with open(path, "w", encoding="ascii"):
                pass

    @staticmethod
    def append(path, text):
        """Without keeping it open: it may have grown by the time of the restore."""
        with open(path, "a", encoding="ascii") as file:
            file.write(text + "\n")

    def worker_apart(self, keep_theirs=False):
        """A worker that is no descendant of who starts it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            os.setsid()
            worker = os.fork()
            if worker != 0:
                os.write(writer, str(worker).encode())
                os._exit(0)
            ours.close()
            theirs.set_inheritable(True)
            os.execl(CRIU, CRIU, "swrk", str(theirs.fileno()))
        os.waitpid(between, 0)
        self.append(self.workers, os.read(reader, 99).decode())  # it is the test's child now
        os.close(reader)
        os.close(writer)
        if keep_theirs:
            theirs.detach()
        theirs.close()
        return Client(ours)

    def worker_below(self):
        return Client.swrk(CRIU)

    def ask(self, connect, before, opts):
        client = connect()
        before(client)
        client.send("DUMP", opts)
        while True:
            answer = client.receive()
            self.append(self.notes, json.dumps(answer))
            if answer is None:
                break
        client.socket.close()

    def live(self, connect, before, opts):
        signals = {signal.SIGUSR1, signal.SIGUSR2}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        counter = os.open(self.counter, os.O_WRONLY | os.O_APPEND)
        self.ask(connect, before, opts)
        while True:
            if signal.sigwait(signals) == signal.SIGUSR1:
                os.write(counter, b".")
            else:
                self.ask(connect, before, opts)

    def start_asking(self, connect=None, before=lambda client: None, below=False, **opts):
        """`below`: it is not the root of the tree that asks, but a child of that."""
        self.tree = os.fork()
        if self.tree != 0:
            return
        try:
            stand_alone(self.directory)
            if below:
                opts["pid"] = os.getpid()
                child = os.fork()
                if child != 0:
                    self.append(self.base + "/child", str(child))
                    os.waitpid(child, 0)
                    os._exit(0)
            self.live(connect or self.worker_apart, before, self.opts(**opts))
        except BaseException as error:  # nobody else would hear of it
            self.append(self.notes, json.dumps(repr(error)))
        finally:
            os._exit(1)

    def await_lines(self, path, count):
        until = time.monotonic() + 20
        while True:
            with open(path, encoding="ascii") as file:
                lines = file.read().splitlines()
            if len(lines) >= count:
                return lines
            self.assertLess(time.monotonic(), until, f"{path}: {lines}")
            time.sleep(0.001)

    def noted(self, count):
        """What it has been answered; None: the other end hung up."""
        return [json.loads(line) for line in self.await_lines(self.notes, count)]

    def end_of_worker(self, number=0):
        pid = int(self.await_lines(self.workers, number + 1)[number])
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def restore(self):
        client = Client.swrk(CRIU)
        response = client.call("RESTORE", self.opts(log_file="restore.log"))
        self.assertEqual(client.end(), 0)
        self.assertTrue(response["success"], response)
        self.assertEqual(response["restore"]["pid"], self.tree)

    def test_what_is_in_the_image(self):
        self.start_asking()
        self.assertEqual(self.end_of_worker(), 0, self.log())
        shown = json.loads(subprocess.run([os.environ["CRIT"], "decode", "-i", self.images + "/files.img"],
                                          stdout=subprocess.PIPE, check=True).stdout)
        sockets = [entry["usk"] for entry in shown["entries"] if "usk" in entry]
        tcp_close, service = 7, 2
        self.assertEqual([(one["state"], one["uflags"], one["peer"]) for one in sockets], [(tcp_close, service, 0)])

    def test_two_rounds(self):
        self.start_asking()
        for number in range(2):
            self.assertEqual(self.end_of_worker(number), 0, self.log())
            os.waitpid(self.tree, 0)
            self.assertEqual(len(self.noted(0)), 2 * number)  # who is gone has heard nothing
            self.restore()
            self.assertEqual(self.noted(2 * number + 2), [RESTORED, None] * (number + 1))
            self.assertTrue(self.answers())
            if number == 0:
                os.kill(self.tree, signal.SIGUSR2)

    def test_it_goes_on(self):
        self.start_asking(leave_running=True)
        self.assertEqual(self.noted(2), [SURVIVED, None])
        self.assertEqual(self.end_of_worker(), 0)
        self.assertTrue(self.answers())
        os.kill(self.tree, signal.SIGKILL)
        self.reap()
        os.truncate(self.counter, 0)  # as it was at the checkpoint
        self.restore()
        self.assertEqual(self.noted(4)[2:], [RESTORED, None])
        self.assertTrue(self.answers())

    def test_it_is_stopped(self):
        self.start_asking(leave_stopped=True)
        self.assertEqual(self.end_of_worker(), 0)
        self.assertEqual(self.noted(0), [])
        os.kill(self.tree, signal.SIGCONT)
        self.assertEqual(self.noted(2), [SURVIVED, None])

    def test_a_child_asks_for_all(self):
        self.start_asking(below=True)
        self.assertEqual(self.end_of_worker(), 0, self.log())
        self.reap()
        self.restore()
        self.assertEqual(self.noted(2), [RESTORED, None])
        root, self.tree = self.tree, int(self.await_lines(self.base + "/child", 1)[0])
        self.assertTrue(self.answers())
        self.tree = root

    def test_what_waits_unread_comes_first(self):
        self.start_asking(before=lambda client: client.send("VERSION", keep_open=True))
        self.assertEqual(self.end_of_worker(), 0, self.log())
        os.waitpid(self.tree, 0)
        self.restore()
        answers = self.noted(3)
        self.assertEqual([answers[0]["type"], *answers[1:]], [REQUEST["VERSION"], RESTORED, None])

    def refused(self, says, **more):
        self.start_asking(**more)
        answer, end = self.noted(2)
        self.assertIsNone(end)
        self.assertFalse(answer["success"])
        self.assertIn(says, answer["cr_errmsg"])
        self.assertTrue(self.answers())
        return answer

    def test_nobody_can_answer_notifications(self):
        self.assertEqual(self.refused("notify_scripts", notify_scripts=True)["cr_errno"], errno.EBADRQC)

    def test_a_worker_inside_the_tree(self):
        self.refused("The criu itself is within dumped tree.", connect=self.worker_below)

    def test_both_ends_in_the_tree(self):
        # Its end stays open, so that nobody hangs up.
        self.start_asking(connect=lambda: self.worker_apart(keep_theirs=True))
        self.assertEqual(self.end_of_worker(), 1)
        answer, = self.noted(1)
        self.assertFalse(answer["success"])
        self.assertIn("the service's end of the connection", answer["cr_errmsg"])
        self.assertTrue(rpc_test.alive(self.tree))

    def test_0_is_not_itself(self):
        self.assertEqual(self.refused("pid not specified", pid=0)["cr_errno"], errno.EBADRQC)

    def test_over_a_service(self):
        reader, writer = os.pipe()
        path = self.base + "/socket"
        service = subprocess.Popen([CRIU, "service", "--address", path, "--status-fd", str(writer), "-W", self.base,
                                    "-o", "service.log", "-v4"], pass_fds=[writer])
        try:
            os.close(writer)
            self.assertEqual(os.read(reader, 1), b"\0")
            os.close(reader)
            self.start_asking(connect=lambda: Client.connect(path))
            os.waitpid(self.tree, 0)
            # The service tells of the worker's end, by which the images are complete.
            until = time.monotonic() + 20
            while "exited with" not in self.service_log():
                self.assertLess(time.monotonic(), until)
            self.assertIn("exited with 0", self.service_log())
            self.restore()
            self.assertEqual(self.noted(2), [RESTORED, None])
            self.assertTrue(self.answers())
        finally:
            service.terminate()
            service.wait()

    def service_log(self):
        with open(self.base + "/service.log", encoding="utf-8") as file:
            return file.read()


if __name__ == "__main__":
    unittest.main(verbosity=2, argv=sys.argv)
