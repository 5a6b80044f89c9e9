#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The C library, called as C programs call it. In a pid namespace of its own; $CRIU_CLI is the program that it starts,
$LIBCRIU the library, $CRIU_H its header, $EXAMPLE the program of its documentation, $API what is known of its
interface, $RPC_PROTO the messages, $EXAMPLE_SOURCE what $DOCUMENTATION shows."""
import contextlib
import ctypes
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../rpc"))
from client import decode, stand_alone  # noqa: E402

CRIU = os.environ["CRIU_CLI"].encode()
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
lib = ctypes.CDLL(os.environ["LIBCRIU"], use_errno=True)
NOTIFY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
MORE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class Features(ctypes.Structure):
    _fields_ = [("mem_track", ctypes.c_bool), ("lazy_pages", ctypes.c_bool), ("pidfd_store", ctypes.c_bool)]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class Case(unittest.TestCase):
    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="criu-live-libcriu-")
        self.addCleanup(shutil.rmtree, self.base)
        self.images = self.base + "/images"
        self.directory = self.make_directory("images")
        self.tree = None
        self.addCleanup(self.end_tree)
        self.assertEqual(lib.criu_init_opts(), 0)
        self.addCleanup(lib.criu_free_opts)
        self.assertEqual(lib.criu_set_service_binary(CRIU), 0)
        lib.criu_set_images_dir_fd(self.directory)
        lib.criu_set_log_level(4)
        self.assertEqual(lib.criu_set_log_file(b"log"), 0)

    def make_directory(self, name):
        os.mkdir(f"{self.base}/{name}")
        descriptor = os.open(f"{self.base}/{name}", os.O_RDONLY)
        self.addCleanup(os.close, descriptor)
        return descriptor

    def log(self, name="images/log"):
        with open(f"{self.base}/{name}", encoding="utf-8", errors="replace") as file:
            return file.read()

    def end_tree(self):
        if self.tree is not None and alive(self.tree):
            os.kill(self.tree, signal.SIGKILL)
        self.reap()

    @staticmethod
    def reap():
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            pass

    def start(self):
        process = subprocess.Popen(["setsid", "sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.tree = process.pid
        until = time.monotonic() + 20
        while True:
            with open(f"/proc/{self.tree}/comm", encoding="ascii") as file:
                if file.read() == "sleep\n":
                    break
            self.assertLess(time.monotonic(), until)
        process.returncode = 0  # it is waited for here
        lib.criu_set_pid(self.tree)
        return self.tree

    def dumped(self):
        self.start()
        self.assertEqual(lib.criu_dump(), 0, ctypes.get_errno())
        self.assertEqual(os.waitpid(self.tree, 0)[0], self.tree)


class Options(Case):
    """What reaches whoever is asked."""
    NUMBERS = [("pid", 4711), ("images_dir_fd", 11), ("work_dir_fd", 12), ("log_level", 3), ("pidfd_store_sk", 13),
               ("cpu_cap", 5), ("ghost_limit", 1 << 31), ("timeout", 90), ("manage_cgroups_mode", 4),
               ("network_lock", 2), ("pre_dump_mode", 2), ("empty_ns", 0x40000000)]
    SWITCHES = ["leave_running", "ext_unix_sk", "tcp_established", "tcp_skip_in_flight", "tcp_close", "weak_sysctls",
                "evasive_devices", "shell_job", "skip_file_rwx_check", "orphan_pts_master", "file_locks", "track_mem",
                "auto_dedup", "force_irmap", "link_remap", "manage_cgroups", "auto_ext_mnt", "ext_sharing",
                "ext_masters", "mntns_compat_mode", "unprivileged"]
    TEXTS = [("set_parent_images", "parent_img"), ("set_log_file", "log_file"), ("set_root", "root"),
             ("set_freeze_cgroup", "freeze_cgroup"), ("set_lsm_profile", "lsm_profile"),
             ("set_lsm_mount_context", "lsm_mount_context"), ("set_config_file", "config_file")]
    LISTS = [("add_enable_fs", "enable_fs"), ("add_skip_mnt", "skip_mnt"), ("add_irmap_path", "irmap_scan_paths"),
             ("add_external", "external")]
    LOCAL_TEXTS = [("add_cg_props", "cgroup_props"), ("add_cg_props_file", "cgroup_props_file"),
                   ("add_cg_yard", "cgroup_yard")]

    def setUp(self):
        super().setUp()
        self.assertEqual(lib.criu_init_opts(), 0)
        self.local = ctypes.c_void_p(None)
        self.assertEqual(lib.criu_local_init_opts(ctypes.byref(self.local)), 0)
        self.addCleanup(lambda: lib.criu_local_free_opts(self.local))

    def both(self, name, *arguments, result=0):
        """The same to the global set and to the other one. Functions that return nothing leave what they like."""
        for returned in (getattr(lib, "criu_" + name)(*arguments),
                         getattr(lib, "criu_local_" + name)(self.local, *arguments)):
            if result is not None:
                self.assertEqual(returned, result, name)

    def sent(self):
        """The options of a request, which are the same from both."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        requests = []
        with ours, theirs:
            self.both("set_service_fd", theirs.fileno(), result=None)
            for ask in (lib.criu_pre_dump, lambda: lib.criu_local_pre_dump(self.local)):
                ours.send(b"\x08\x0d\x10\x01")  # the answer: SINGLE_PRE_DUMP, success
                self.assertEqual(ask(), 0)
                requests.append(decode("criu_req", ours.recv(65536)))
        self.assertEqual(requests[0], requests[1])
        self.assertEqual(requests[0]["type"], 13)
        return requests[0]["opts"]

    def test_nothing_but_what_was_set(self):
        self.assertEqual(self.sent(), {"images_dir_fd": -1})

    def test_numbers_and_switches(self):
        for name, value in self.NUMBERS:
            self.both("set_" + name, value, result=0 if name in ("network_lock", "pre_dump_mode") else None)
        numbers = dict(self.NUMBERS)
        for value in (True, False):
            for name in self.SWITCHES:
                self.both("set_" + name, value, result=None)
            self.assertEqual(self.sent(), {**numbers, **{name: value for name in self.SWITCHES}})

    def test_texts_and_lists(self):
        wanted = {"images_dir_fd": -1}
        for name, field in self.TEXTS:
            self.both(name, b"not the last word")
            self.both(name, field.encode())
            wanted[field] = field
        for name, field in self.LISTS:
            self.both(name, b"first")
            self.both(name, field.encode())
            wanted[field] = ["first", field]
        self.assertEqual(self.sent(), wanted)

    def test_what_only_local_sets_have(self):
        for name, field in self.LOCAL_TEXTS:
            self.assertEqual(getattr(lib, "criu_local_" + name)(self.local, field.encode()), 0)
        for controller in (b"cpu", b"pids"):
            self.assertEqual(lib.criu_local_add_cg_dump_controller(self.local, controller), 0)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            lib.criu_local_set_service_fd(self.local, theirs.fileno())
            ours.send(b"\x08\x0d\x10\x01")
            self.assertEqual(lib.criu_local_pre_dump(self.local), 0)
            self.assertEqual(decode("criu_req", ours.recv(65536))["opts"],
                             {"images_dir_fd": -1, "cgroup_dump_controller": ["cpu", "pids"],
                              **{field: field for _, field in self.LOCAL_TEXTS}})

    def test_what_has_parts(self):
        words = (ctypes.c_char_p * 3)(b"sh", b"-c", b"more than asked for")
        for count in (3, 2):
            self.both("set_exec_cmd", count, words)
        self.both("set_page_server_address_port", b"::1", 7)
        self.both("set_notify_cb", NOTIFY(lambda action, argument: 0), result=None)
        self.both("add_unix_sk", 4294967295)
        self.both("add_ext_mount", b"key", b"val")
        self.both("add_veth_pair", b"in", b"out")
        self.both("add_cg_root", b"cpu", b"/one")
        self.both("add_cg_root", None, b"/all")
        self.both("add_inherit_fd", 5, b"pipe:[1]")
        self.both("join_ns_add", b"user", b"/user", b"7,7")
        self.both("join_ns_add", b"net", b"/net", None)
        self.assertEqual(self.sent(), {
            "images_dir_fd": -1, "exec_cmd": ["sh", "-c"], "ps": {"address": "::1", "port": 7}, "notify_scripts": True,
            "ext_unix_sk": True, "unix_sk_ino": [{"inode": 4294967295}], "ext_mnt": [{"key": "key", "val": "val"}],
            "veths": [{"if_in": "in", "if_out": "out"}],
            "cg_root": [{"ctrl": "cpu", "path": "/one"}, {"path": "/all"}],
            "inherit_fd": [{"key": "pipe:[1]", "fd": 5}],
            "join_ns": [{"ns": "user", "ns_file": "/user", "extra_opt": "7,7"}, {"ns": "net", "ns_file": "/net"}]})


class Library(Case):
    def test_what_is_known_of_the_interface(self):
        said = subprocess.run([os.environ["API"]], stdout=subprocess.PIPE, text=True, check=False)
        self.assertEqual((said.returncode, said.stdout), (0, "140 functions\n"))

    def test_as_an_engine_that_loads_it(self):
        os.mkdir(self.base + "/bin")
        os.symlink(CRIU, self.base.encode() + b"/bin/criu")
        pid = self.start()
        engine = subprocess.Popen([os.environ["API"], str(pid), self.images], stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, "PATH": f"{self.base}/bin:{os.environ['PATH']}"})
        os.waitpid(pid, 0)
        self.assertEqual(engine.stdout.readline(), f"{pid}\n")
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(engine.wait(20), signal.SIGTERM)
        engine.stdout.close()

    def test_every_name_of_the_header_is_there(self):
        with open(os.environ["CRIU_H"], encoding="ascii") as file:
            names = re.findall(r"CRIU_API [^;]*?\b(criu_\w+)(?=\(|;)", file.read())
        self.assertGreater(len(names), 130)
        for name in names:
            getattr(lib, name)
        exported = subprocess.run(["nm", "-D", "--defined-only", os.environ["LIBCRIU"]], stdout=subprocess.PIPE,
                                  text=True, check=True).stdout
        self.assertEqual(set(line.split()[-1].split("@")[0] for line in exported.splitlines()), set(names))
        self.assertEqual(ctypes.c_char_p.in_dll(lib, "criu_lib_version").value, b"4.2")

    def test_version_and_features(self):
        self.assertEqual(lib.criu_get_version(), 40200)
        self.assertEqual([lib.criu_check_version(minimum) for minimum in (31200, 40200, 40201)], [1, 1, 0])
        features = Features(True, True, False)
        self.assertEqual(lib.criu_feature_check(ctypes.byref(features), ctypes.c_size_t(ctypes.sizeof(features))), 0)
        self.assertEqual((features.mem_track, features.lazy_pages, features.pidfd_store), (True, False, False))
        self.assertEqual(lib.criu_feature_check(ctypes.byref(features), ctypes.c_size_t(100)), -1)

    def test_check(self):
        self.assertEqual(lib.criu_check(), 0)

    def test_dump_and_restore(self):
        self.dumped()
        self.assertIn("Dumping finished successfully", self.log())
        self.assertEqual(lib.criu_restore(), self.tree)
        self.assertTrue(alive(self.tree))

    def test_child(self):
        self.dumped()
        self.assertEqual(lib.criu_restore_child(), self.tree)
        with open(f"/proc/{self.tree}/stat", encoding="ascii") as file:
            self.assertEqual(int(file.read().rsplit(")", 1)[1].split()[1]), os.getpid())
        os.kill(self.tree, signal.SIGTERM)
        self.assertEqual(os.waitpid(self.tree, 0), (self.tree, signal.SIGTERM))

    def test_leave_running(self):
        self.start()
        lib.criu_set_leave_running(True)
        self.assertEqual(lib.criu_dump(), 0)
        self.assertTrue(alive(self.tree))

    def test_two_sets(self):
        opts = ctypes.c_void_p(None)
        self.assertEqual(lib.criu_local_init_opts(ctypes.byref(opts)), 0)
        lib.criu_local_set_service_binary(opts, CRIU)
        lib.criu_local_set_images_dir_fd(opts, self.make_directory("other"))
        lib.criu_local_set_leave_running(opts, True)
        lib.criu_local_set_pid(opts, self.start())
        for key in (b"a", b"b"):
            self.assertEqual(lib.criu_local_add_external(opts, key + b"[x]"), 0)
        self.assertEqual(lib.criu_local_add_cg_root(opts, None, b"/here"), 0)
        self.assertEqual(lib.criu_local_add_veth_pair(opts, b"in", b"out"), 0)
        self.assertEqual(lib.criu_local_join_ns_add(opts, b"net", b"/proc/self/ns/net", None), 0)
        self.assertEqual(lib.criu_local_set_page_server_address_port(opts, b"::1", 7), 0)
        self.assertEqual(lib.criu_local_dump(opts), -errno.EBADE)  # it has a page server, which is not there yet
        self.assertEqual(lib.criu_local_init_opts(ctypes.byref(opts)), 0)  # instead of the other
        lib.criu_local_free_opts(opts)
        self.assertEqual(lib.criu_dump(), 0)

    def test_options_that_make_no_sense(self):
        self.assertEqual([lib.criu_set_network_lock(value) for value in (0, 1, 3, 4)], [-1, 0, 0, -1])
        self.assertEqual([lib.criu_set_pre_dump_mode(value) for value in (0, 1, 2, 3)], [-1, 0, 0, -1])
        self.assertEqual(lib.criu_add_unix_sk(7), 0)
        lib.criu_set_ext_unix_sk(False)
        self.assertEqual(lib.criu_add_unix_sk(8), -1)
        lib.criu_set_service_fd(0)
        self.assertEqual(lib.criu_add_inherit_fd(1, b"key"), -1)
        self.assertEqual(lib.criu_join_ns_add(None, b"x", None), -1)
        lib.criu_free_opts()
        self.assertEqual(lib.criu_check(), -1)

    def test_errors(self):
        lib.criu_set_pid(4194300)
        ctypes.set_errno(0)
        self.assertEqual((lib.criu_dump(), ctypes.get_errno()), (-errno.EBADE, errno.ESRCH))
        self.start()
        lib.criu_set_images_dir_fd(-1)
        self.assertEqual((lib.criu_dump(), ctypes.get_errno()), (-errno.EBADE, errno.EBADRQC))
        lib.criu_set_service_binary(b"/nowhere/criu")
        self.assertEqual((lib.criu_check(), ctypes.get_errno()), (-errno.ECOMM, errno.ECOMM))
        lib.criu_set_service_address(self.base.encode() + b"/no-socket")
        self.assertEqual((lib.criu_check(), ctypes.get_errno()), (-errno.ECONNREFUSED, errno.ECONNREFUSED))
        lib.criu_set_service_binary(b"true")
        self.assertEqual(lib.criu_check(), -errno.ECOMM)
        self.assertTrue(alive(self.tree))

    def test_answers_that_are_none(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            lib.criu_set_service_fd(theirs.fileno())
            for answer, result in ((b"\x08\x00\x10\x00", errno.EINVAL), (b"\x08\x01\x10\x01", errno.EBADMSG),
                                   (b"\xff\xff", errno.ECOMM)):
                ours.send(answer)
                self.assertEqual((lib.criu_check(), ctypes.get_errno()), (-result, result))
                self.assertEqual(ours.recv(99), b"\x08\x03")

    def test_a_service_that_dies(self):
        path = self.base + "/socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen()
            service = os.fork()
            if service == 0:
                connection, _ = listener.accept()
                connection.recv(65536)
                os._exit(0)
            lib.criu_set_service_address(path.encode())
            self.assertEqual((lib.criu_check(), ctypes.get_errno()), (-errno.ECOMM, errno.ECOMM))
            os.waitpid(service, 0)

    def test_children_are_not_reported(self):
        """Callers have their own ways with SIGCHLD."""
        for handler, mask in ((signal.SIG_IGN, set()), (signal.SIG_DFL, {signal.SIGCHLD})):
            before = signal.signal(signal.SIGCHLD, handler)
            signal.pthread_sigmask(signal.SIG_BLOCK, mask)
            try:
                self.start()
                self.assertEqual(lib.criu_dump(), 0, ctypes.get_errno())
                self.reap()
                self.assertEqual(lib.criu_restore(), self.tree, self.log())
                self.assertTrue(alive(self.tree))
                self.assertEqual(signal.pthread_sigmask(signal.SIG_BLOCK, set()), mask)
            finally:
                signal.signal(signal.SIGCHLD, before)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, mask)
            self.end_tree()

    def test_a_command_that_follows(self):
        self.dumped()
        words = (ctypes.c_char_p * 3)(b"sh", b"-c", f"echo $PPID >{self.base}/follows".encode())
        self.assertEqual(lib.criu_set_exec_cmd(3, words), 0)
        self.assertEqual(lib.criu_restore(), self.tree)
        with open(self.base + "/follows", encoding="ascii") as file:  # it was the worker, and has been waited for
            self.assertEqual(int(file.read()), os.getpid())

    def test_external_file(self):
        first, second = self.base + "/first", self.base + "/second"
        script = f"exec 7>>{first}; trap 'echo heard >&7' USR1; echo ready >&7; while :; do sleep 0.01; done"
        process = subprocess.Popen(["setsid", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        self.tree = process.pid
        process.returncode = 0
        self.await_text(first, "ready\n")
        with open(f"/proc/{self.tree}/fdinfo/7", encoding="ascii") as file:
            mount = re.search(r"mnt_id:\s*(\d+)", file.read())[1]
        key = f"file[{int(mount):x}:{os.stat(first).st_ino:x}]".encode()
        lib.criu_set_pid(self.tree)
        self.assertEqual(lib.criu_add_external(key), 0)
        self.assertEqual(lib.criu_dump(), 0, self.log())
        self.reap()
        os.unlink(first)
        given = os.open(second, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.set_inheritable(given, True)
        self.assertEqual(lib.criu_add_inherit_fd(given, key), 0)
        self.assertEqual(lib.criu_restore(), self.tree, self.log())
        os.close(given)
        os.kill(self.tree, signal.SIGUSR1)
        self.await_text(second, "heard\n")

    def await_text(self, path, text):
        until = time.monotonic() + 20
        while True:
            try:
                with open(path, encoding="ascii") as file:
                    if file.read() == text:
                        return
            except FileNotFoundError:
                pass
            self.assertLess(time.monotonic(), until, path)
            time.sleep(0.001)

    def test_notifications(self):
        self.start()
        told = []

        def notified(action, argument):
            told.append((action.decode(), lib.criu_notify_pid(ctypes.c_void_p(argument))))
            return 0
        callback = NOTIFY(notified)
        lib.criu_set_notify_cb(callback)
        self.assertEqual(lib.criu_dump(), 0)
        os.waitpid(self.tree, 0)
        self.assertEqual([name for name, _ in told if name in ("pre-dump", "post-dump")], ["pre-dump", "post-dump"])
        told.clear()
        self.assertEqual(lib.criu_restore(), self.tree)
        self.assertIn(("post-restore", self.tree), told)
        self.assertEqual(told[-1][0], "post-resume")

    def test_veto(self):
        self.start()
        callback = NOTIFY(lambda action, argument: 5 if action == b"pre-dump" else 0)
        lib.criu_set_notify_cb(callback)
        self.assertEqual(lib.criu_dump(), 5)
        self.assertTrue(alive(self.tree))
        self.assertEqual(os.waitpid(-1, os.WNOHANG), (0, 0))  # the worker has been waited for

    def test_pre_dump(self):
        self.start()
        self.assertEqual(lib.criu_pre_dump(), 0)
        self.assertTrue(alive(self.tree))
        self.assertIn(f"pagemap-{self.tree}.img", os.listdir(self.images))

    def test_iterations(self):
        self.start()
        rounds = []

        def more(_info):
            rounds.append(len(rounds))
            lib.criu_set_images_dir_fd(self.make_directory(str(len(rounds))))
            lib.criu_set_parent_images(b"../images" if len(rounds) == 1 else b"../1")
            return 2 - len(rounds)
        callback = MORE(more)
        self.assertEqual(lib.criu_dump_iters(callback), 0)
        self.assertEqual(rounds, [0, 1])
        os.waitpid(self.tree, 0)
        self.assertEqual(os.readlink(self.base + "/2/parent"), "../1")
        self.assertEqual(lib.criu_restore(), self.tree)

    def test_iterations_that_are_given_up(self):
        self.start()
        callback = MORE(lambda _info: -7)
        self.assertEqual(lib.criu_dump_iters(callback), -7)
        self.assertTrue(alive(self.tree))

    @contextlib.contextmanager
    def service(self):
        """Where it listens."""
        path = self.base + "/socket"
        reader, writer = os.pipe()
        service = subprocess.Popen([CRIU, "service", "--address", path, "--status-fd", str(writer)],
                                   stderr=subprocess.DEVNULL, pass_fds=[writer])
        try:
            os.close(writer)
            self.assertEqual(os.read(reader, 1), b"\0")
            os.close(reader)
            yield path
        finally:
            service.terminate()
            service.wait()

    def test_service(self):
        with self.service() as path:
            lib.criu_set_service_address(path.encode())
            self.start()
            self.assertEqual(lib.criu_get_version(), 40200)
            self.assertEqual(lib.criu_dump(), 0, ctypes.get_errno())
            self.assertEqual(os.waitpid(self.tree, 0)[0], self.tree)
            self.assertEqual(lib.criu_restore(), self.tree)

    def start_itself(self):
        """A process that asks for its own checkpoint, and notes what that has returned."""
        self.tree = os.fork()
        if self.tree == 0:
            stand_alone(self.directory)
            result = lib.criu_dump()
            with open(self.base + "/result", "a", encoding="ascii") as file:
                file.write(f"{result}\n")
            while True:
                signal.pause()

    def results(self, count):
        until = time.monotonic() + 20
        while True:
            try:
                with open(self.base + "/result", encoding="ascii") as file:
                    lines = file.read().split()
            except FileNotFoundError:
                lines = []
            if len(lines) == count:
                return lines
            self.assertLess(time.monotonic(), until, "nothing has been returned")

    def check_restored_itself(self):
        lib.criu_set_pid(self.tree)
        self.assertEqual(lib.criu_restore(), self.tree, self.log())
        self.assertEqual(self.results(1), ["1"])
        self.assertEqual(self.children_of(self.tree), "")
        self.assertTrue(alive(self.tree))

    @staticmethod
    def children_of(pid):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return file.read()

    def test_a_checkpoint_of_itself(self):
        self.start_itself()
        os.waitpid(self.tree, 0)
        self.reap()  # the worker as well, whose last words are the images
        self.check_restored_itself()

    def test_a_checkpoint_of_itself_by_a_service(self):
        with self.service() as path:
            lib.criu_set_service_address(path.encode())
            self.start_itself()
            os.waitpid(self.tree, 0)
            until = time.monotonic() + 20
            while not os.path.exists(self.images + "/log") or "Dumping finished successfully" not in self.log():
                self.assertLess(time.monotonic(), until)
            self.check_restored_itself()

    def test_itself_and_goes_on(self):
        lib.criu_set_leave_running(True)
        self.start_itself()
        self.assertEqual(self.results(1), ["0"])
        self.assertTrue(alive(self.tree))

    def test_itself_with_notifications_is_refused(self):
        callback = NOTIFY(lambda action, argument: 0)
        lib.criu_set_notify_cb(callback)
        self.start_itself()
        self.assertEqual(self.results(1), [str(-errno.EBADE)])
        self.assertIn("notify_scripts", self.log())

    def test_inherited_descriptor(self):
        reader, writer = os.pipe()
        inode = os.fstat(writer).st_ino
        script = "trap 'echo heard' USR1; echo ready; while :; do sleep 0.01; done"
        process = subprocess.Popen(["setsid", "sh", "-c", script],
                                   stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.DEVNULL)
        self.tree = process.pid
        process.returncode = 0
        os.close(writer)
        self.assertEqual(os.read(reader, 99), b"ready\n")
        lib.criu_set_pid(self.tree)
        self.assertEqual(lib.criu_dump(), 0, self.log())
        self.reap()  # its children as well
        os.close(reader)
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        self.assertEqual(lib.criu_add_inherit_fd(writer, f"pipe:[{inode}]".encode()), 0)
        self.assertEqual(lib.criu_restore(), self.tree, self.log())
        os.close(writer)
        os.kill(self.tree, signal.SIGUSR1)
        self.assertEqual(os.read(reader, 99), b"heard\n")
        os.close(reader)

    def test_the_example_is_the_documentations(self):
        with open(os.environ["DOCUMENTATION"], encoding="ascii") as file:
            shown = re.search(r"```c\n(.*?)```", file.read(), re.DOTALL)[1]
        with open(os.environ["EXAMPLE_SOURCE"], encoding="ascii") as file:
            self.assertEqual(shown, file.read().split("\n", 1)[1])  # without its licence

    def test_example(self):
        pid = self.start()
        example = subprocess.Popen([os.environ["EXAMPLE"], CRIU, str(pid), self.images], stdout=subprocess.PIPE,
                                   text=True)
        os.waitpid(pid, 0)
        self.assertEqual(example.stdout.readline(), f"{pid}\n")
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(example.wait(20), signal.SIGTERM)
        example.stdout.close()


if __name__ == "__main__":
    unittest.main(verbosity=2, argv=sys.argv)
