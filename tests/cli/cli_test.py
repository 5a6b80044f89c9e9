#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What programs and people see of criu-cli: stdout, exit codes, files, and a plain word on stderr.

Runs the program named by $CRIU_CLI, as root."""

import ctypes
import errno
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest

CRIU = os.environ["CRIU_CLI"]


def refuse_clone3(error):
    """A filter of system calls: clone3 fails with this errno, all else is allowed."""
    program = struct.pack("HBBI" * 4, 0x20, 0, 0, 0,         # load the number of the call
                          0x15, 0, 1, 435,                   # clone3?
                          0x06, 0, 0, 0x00050000 | error,    # fail
                          0x06, 0, 0, 0x7fff0000)            # allow
    buffer = ctypes.create_string_buffer(program)
    filter_of = struct.pack("HxxxxxxP", 4, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    pr_set_seccomp, mode_filter = 22, 2
    if libc.prctl(pr_set_seccomp, mode_filter, ctypes.c_char_p(filter_of), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="criu-cli-")
        self.home = os.path.join(self.dir, "home")
        self.images = os.path.join(self.dir, "images")
        os.makedirs(self.home + "/.criu")
        os.makedirs(self.images)
        self.addCleanup(shutil.rmtree, self.dir)

    def run_criu(self, *args, env=None, **more):
        variables = {key: value for key, value in os.environ.items() if not key.startswith("CRIU_")}
        variables.update({"HOME": self.home}, **(env or {}))
        return subprocess.run([CRIU, *args], cwd=self.dir, env=variables, capture_output=True, text=True, timeout=60, **more)

    def fails(self, *args, says, code=1, usage=False, **more):
        result = self.run_criu(*args, **more)
        self.assertEqual(result.returncode, code, result)
        self.assertIn(says, result.stderr)
        if usage:
            self.assertIn("Usage:", result.stdout)
        else:
            self.assertEqual(result.stdout, "")
        return result

    def write(self, name, text, mode=0o600):
        path = os.path.join(self.dir, name)
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def read(self, *name):
        with open(os.path.join(self.dir, *name)) as file:
            return file.read()


class Talking(Case):
    def test_version(self):
        for spelled in ("-V", "--version"):
            result = self.run_criu(spelled)
            self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "Version: 4.2\n", ""))
        self.assertEqual(self.run_criu("-V", "--bogus").returncode, 0)
        self.assertEqual(self.run_criu("--bogus", "-V").returncode, 1)

    def test_usage(self):
        result = self.run_criu()
        self.assertEqual((result.returncode, result.stderr), (1, ""))
        self.assertIn("Try -h|--help for more info", result.stdout)
        for args in (["-h"], ["dump", "--help"], ["--bogus", "-h"]):
            result = self.run_criu(*args)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            for word in ("--tree PID", "--lazy-pages", "pagemap_scan_guard_pages", "page-server", "--ms"):
                self.assertIn(word, result.stdout)

    def test_unknown(self):
        self.fails("--bogus", "dump", says="unrecognized option '--bogus'", usage=True)
        self.fails("-q", says="invalid option -- 'q'", usage=True)
        self.fails("dump", "--leave", says="is ambiguous", usage=True)
        self.fails("dump", "--tree", says="requires an argument", usage=True)
        self.fails("bake", says="unknown command: bake", usage=True)
        self.fails("-v4", says="command is required", usage=True)
        self.fails("dum", says="unknown command: dum", usage=True)

    def test_pre_dump_needs_a_tree(self):
        self.fails("pre-dump", says="pid not specified")
        self.fails("pre-dump", "-t", "4194300", says="task 4194300: No such process")
        self.fails("pre-dump", "-t1", "--lazy-pages", says="--lazy-pages: not supported")
        with subprocess.Popen(["sleep", "1000"]) as other:
            self.fails("pre-dump", "-t", str(other.pid), "--prev-images-dir", "nowhere",
                       says="--prev-images-dir nowhere")
            other.kill()

    def test_removed_and_later_commands(self):
        self.fails("exec", says='The "exec" action is deprecated by the Compel library.', code=255)
        self.fails("show", says='To view an image use the "crit decode -i $name --pretty" command.', code=255)
        for command in ("lazy-pages", "page-server", "dedup"):
            self.fails(command, says=command + ": not supported by this version yet")
        self.fails("swrk", "x", says="invalid descriptor: x", usage=True)
        self.fails("swrk", "999", says="Bad file descriptor")
        self.fails("swrk", says="swrk <fd>")
        self.fails("cpuinfo", says="cpuinfo requires an action: dump or check", usage=True)
        self.fails("cpuinfo", "eat", says="unknown cpuinfo sub-command: eat", usage=True)

    def test_words(self):
        self.fails("dump", "x", says="excessive parameter for command dump", usage=True)
        self.fails("restore", "x", "y", says="excessive parameters for command restore", usage=True)
        self.fails("dump", "--exec-cmd", "x", says="--exec-cmd is available for the restore command only", usage=True)
        self.fails("restore", "--exec-cmd", says="--exec-cmd requires a command", usage=True)
        self.fails("restore", "-d", "--exec-cmd", "--", "x", usage=True,
                   says="--restore-detached and --exec-cmd cannot be used together")

    def test_values(self):
        self.fails("dump", "-t", "0", says="invalid argument for -t: 0")
        self.fails("dump", "--tree", "x", says="invalid argument for --tree: x")
        self.fails("dump", says="pid not specified")
        self.fails("restore", "-S", says="--restore-sibling only makes sense with --restore-detached")
        self.fails("dump", "-t1", "--file-validation", "md5", says="Unknown file validation method md5", usage=True)
        self.fails("restore", "--ext-mount-map", "key", says="--ext-mount-map wants KEY:VALUE", usage=True)
        self.fails("dump", "--manage-cgroups=some", says="Unknown cgroups mode some", usage=True)
        self.fails("dump", "-t1", "--cgroup-root", "cpu:here", says="[CONTROLLER:]/PATH")
        self.fails("check", "--ms", says="--ms is deprecated")
        self.fails("dump", "--inherit-fd", "fd[1]:x", says="--inherit-fd is restore-only option")
        self.fails("dump", "-D", "nowhere", says="Couldn't open image dir")
        self.fails("dump", "-W", "nowhere", says="can't change to work dir")

    def test_later_options(self):
        for option in ("--auto-dedup", "--lazy-pages", "--external=x"):
            self.fails("dump", "-t1", option, says="not supported by this version yet")
        self.fails("dump", "-t1", "--auto-de", "--page-server", says="--auto-dedup, --page-server: not supported")
        # Without a say in what the command does, or switched off again: no reason to refuse.
        for args in (["--track-mem"], ["--stream", "--no-stream"], ["--no-auto-dedup"]):
            self.assertIn("inventory", self.run_criu("restore", *args).stderr)

    def test_every_later_option(self):
        """What the man page lists as not supported is refused by the commands that it concerns, and by name."""
        values = {"join-ns": "=uts:1", "cpu-cap": "=all"}
        alone = {"auto-dedup", "page-server", "lazy-pages", "allow-uprobes", "stream", "mntns-compat-mode"}
        with_value = {"external", "lsm-profile", "lsm-mount-context"}
        for name in alone | with_value | set(values):
            option = "--" + name + values.get(name, "=net" if name in with_value else "")
            with self.subTest(option):
                refusals = [self.run_criu(command, "-t1", option) for command in ("dump", "restore")]
                self.assertTrue(any("--" + name in result.stderr and ("not supported by this version yet" in result.stderr)
                                    for result in refusals), refusals)
                self.assertEqual({result.returncode for result in refusals}, {1})

    def test_close(self):
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        self.assertEqual(self.run_criu("--close", str(writer), "-V", pass_fds=[writer]).returncode, 0)
        self.fails("--close", "1000", "-V", says="descriptor 1000")
        os.close(reader)
        os.close(writer)

    def test_environment(self):
        for value in ("0", "139", "-1", "x"):
            self.fails("-V", says="CRIU_FAULT out of bounds.", env={"CRIU_FAULT": value})
        self.assertEqual(self.run_criu("-V", env={"CRIU_FAULT": "1"}).returncode, 0)

    def test_rights(self):
        if os.geteuid() != 0 or shutil.which("setpriv") is None:
            self.skipTest("needs root and setpriv")

        def drop():
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)

        os.chmod(self.dir, 0o755)
        result = self.run_criu("check", preexec_fn=drop)
        self.assertEqual(result.returncode, 1)
        self.assertTrue(result.stdout.startswith(
            "CRIU needs to have the CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE capability: \nsetcap cap_checkpoint_restore+eip "))
        able = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=+checkpoint_restore",
                "--ambient-caps=+checkpoint_restore"]
        result = subprocess.run([*able, CRIU, "check", "--feature", "mnt_id"], capture_output=True, text=True, cwd=self.dir)
        self.assertEqual(result.returncode, 1)
        self.assertTrue(result.stdout.startswith("Running as non-root requires '--unprivileged'\n"), result)
        result = subprocess.run([*able, CRIU, "check", "--unprivileged", "--feature", "mnt_id"], capture_output=True,
                                text=True, cwd=self.dir)
        self.assertEqual((result.returncode, result.stdout), (0, "mnt_id is supported\n"), result)


class Manual(Case):
    def test_all_options_are_in_it(self):
        """Each option of the usage, with its letter, stands in the man page, and nothing else does."""
        page = self.read(os.environ["CRIU_MANUAL"])
        told = set(re.findall(r"\\-([a-z][a-z-]+)", page.replace("\\-\\-", "\\-")))
        usage = self.run_criu("-h").stdout
        known = set(re.findall(r"--(?:\[no-\])?(?!no-)([a-z][a-z-]+)", usage))
        # Of TLS only the first is named; the others are told of together.
        together = {"tls-cacert", "tls-cacrl", "tls-cert", "tls-key", "tls-no-cn-verify"}
        self.assertEqual(known - told - together, set())
        self.assertEqual({name for name in told if not name.startswith("no")} - known, set())
        described = page.split(".Sh NOT SUPPORTED YET")[0]
        letters = re.findall(r"^ +-([A-Za-z])[^-]*--(?:\[no-\])?([a-z-]+)", usage, re.M)
        self.assertGreater(len(letters), 10)
        for letter, name in letters:
            if "\\-%s " % name in described:
                self.assertRegex(described, r"(?m)^\.It Fl %s\b.*\\-%s\b" % (letter, name))

    def test_formats(self):
        if shutil.which("mandoc") is None:
            self.skipTest("no mandoc here")
        result = subprocess.run(["mandoc", "-Tlint", "-Wwarning", os.environ["CRIU_MANUAL"]], capture_output=True, text=True)
        self.assertEqual((result.returncode, result.stdout), (0, ""))


class Config(Case):
    """Each file is told by the option in it that dump refuses."""

    def refused(self, *args, env=None):
        stderr = self.run_criu("dump", "-t1", *args, env=env).stderr
        return set(re.findall(r"--([a-z-]+)", stderr.split(": not supported")[0]))

    def setUp(self):
        super().setUp()
        self.write("home/.criu/default.conf", "stream\n")
        self.by_variable = {"CRIU_CONFIG_FILE": self.write("variable.conf", "lazy-pages\n")}
        self.explicit = self.write("explicit.conf", "page-server # comment\n")

    def test_which_files(self):
        self.assertEqual(self.refused(), {"stream"})
        self.assertEqual(self.refused(env=self.by_variable), {"lazy-pages", "stream"})
        self.assertEqual(self.refused("--no-default-config", env=self.by_variable), {"lazy-pages"})
        self.assertEqual(self.refused("--config", self.explicit, env=self.by_variable), {"lazy-pages", "page-server"})
        self.assertEqual(self.refused("--config=" + self.explicit), {"page-server"})
        self.assertEqual(self.refused("--config", "/nowhere", "--auto-dedup"), {"auto-dedup"})

    def test_the_command_line_has_the_last_word(self):
        self.assertEqual(self.refused("--no-stream", "--auto-dedup"), {"auto-dedup"})

    def test_mistakes(self):
        self.write("home/.criu/default.conf", "bogus\n")
        self.fails("-V", says="unrecognized option '--bogus'", usage=True)
        self.write("home/.criu/default.conf", 'log-file "x\n')
        self.fails("-V", says="Unsupported configuration file format. Please consult man page criu(8)")


class Log(Case):
    def test_file(self):
        log = os.path.join(self.images, "a.log")
        self.write("images/a.log", "old")
        os.umask(0)
        os.unlink(log)
        result = self.fails("dump", "-t1", "--stream", "-D", "images", "-o", "a.log", "-v4",
                            says="--stream: not supported by this version yet")
        self.assertEqual(result.stderr.count("\n"), 1)
        self.assertEqual(stat.S_IMODE(os.stat(log).st_mode), 0o600)
        lines = self.read("images/a.log").splitlines()
        self.assertRegex(lines[0], r"^\(00\.000000\) CRIU run id = [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        lines = lines[1:]
        self.assertRegex(lines[0], r"^\(00\.\d{6}\) Version: 4\.2 \(gitid \S+\)$")
        self.assertEqual(lines[1].split(") ", 1)[1], "Running on " + " ".join(
            getattr(os.uname(), part) for part in ("nodename", "sysname", "release", "version", "machine")))
        self.assertRegex(lines[2], r"^\(00\.\d{6}\) Error \(\w+\.cpp:\d+\): --stream: not supported")

    def test_again(self):
        self.write("a.log", "old\n" * 100)
        self.run_criu("restore", "-o", "a.log")
        self.assertNotIn("old", self.read("a.log"))
        self.assertIn("Restoring FAILED.", self.read("a.log"))

    def test_levels(self):
        self.assertEqual(self.run_criu("restore", "-v0").stderr, "")
        plain = self.run_criu("restore").stderr
        self.assertRegex(plain, r"^Error \(")
        self.assertIn("Running on", self.run_criu("restore", "-v").stderr)
        self.assertIn("Running on", self.run_criu("restore", "--verbosity=3").stderr)
        self.assertEqual(self.run_criu("restore", "-vvvv", "-verbosity=0").stderr, "")

    def test_stdout(self):
        result = self.run_criu("restore", "-o", "-")
        self.assertIn("Restoring FAILED.", result.stdout)
        self.assertEqual(result.stderr.count("\n"), 1)

    def test_work_dir(self):
        os.mkdir(os.path.join(self.dir, "work"))
        self.run_criu("restore", "-D", "images", "-W", "work", "-o", "a.log")
        self.assertIn("FAILED", self.read("work/a.log"))


class Check(Case):
    def test_kernel(self):
        result = self.run_criu("check")
        self.assertEqual((result.returncode, result.stdout), (0, "Looks good.\n"), result)

    def test_more(self):
        result = self.run_criu("check", "--all")
        texts = {0: "Looks good.\n", 1: "Looks good but some kernel features are missing\n"
                 "which, depending on your process tree, may cause\ndump or restore failure.\n"}
        self.assertEqual(result.stdout, texts[result.returncode])

    def test_features(self):
        names = self.run_criu("-h").stdout.split("Names for check --feature:")[1].split()
        self.assertEqual(len(names), 45)
        supported = set()
        for name in names:
            result = self.run_criu("check", "--no-default-config", "-verbosity=0", "--feature", name)
            self.assertEqual(result.stdout, name + " is supported\n" if result.returncode == 0 else "")
            self.assertEqual(result.stderr, "")
            if result.returncode == 0:
                supported.add(name)
        # What every kernel from 5.15 on has that allows checkpoints at all.
        self.assertLessEqual({"mnt_id", "timerfd", "external_net_ns", "ns_pid", "clone3_set_tid", "openat2"}, supported)

    def test_the_last_feature_counts(self):
        result = self.run_criu("check", "--feature", "nonsense", "--feature", "mnt_id")
        self.assertEqual((result.returncode, result.stdout), (0, "mnt_id is supported\n"))
        self.fails("check", "--feature", "nonsense", says="Unknown feature nonsense")

    def test_nothing_stays_behind(self):
        before = self.read("/proc/self/mountinfo"), os.listdir("/sys/class/net")
        self.run_criu("check", "--all")
        for name in ("link_nsid", "tun_ns", "autofs"):
            self.run_criu("check", "--feature", name)
        self.assertEqual((self.read("/proc/self/mountinfo"), os.listdir("/sys/class/net")), before)


class RoundTrip(Case):
    """A process that sleeps in a session of its own."""

    def victim(self):
        process = subprocess.Popen(["setsid", "sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, cwd="/")
        self.addCleanup(self.end, process.pid, process)
        # setsid becomes sleep: dumped before that it would be another program.
        while self.read("/proc", str(process.pid), "comm") != "sleep\n":
            pass
        return process

    @staticmethod
    def end(pid, process=None):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if process is not None:
            process.wait()

    def dump(self, *args, code=0):
        process = self.victim()
        result = self.run_criu("dump", "-t", str(process.pid), "-D", "images", "-o", "dump.log", "-v4", *args)
        self.assertEqual(result.returncode, code, result)
        if code == 0:
            self.assertEqual(result.stderr, "")
        return process, result

    def state(self, pid):
        return re.search(r"State:\t(.)", self.read("/proc", str(pid), "status"))[1]

    def test_restore_where_pids_are_taken(self):
        process, _ = self.dump("-R")
        self.assertIn("--pidns", self.run_criu("restore", "-d", "-D", "images", "-o", "restore.log").stderr)
        done = self.run_criu("restore", "-d", "-D", "images", "-o", "restore.log", "--pidns", "--pidfile", "pid")
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
        inside = self.read("images/pid").strip()
        self.assertEqual(inside, str(process.pid))
        # Its init is an orphan of this process.
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            init = next(int(pid) for pid in file.read().split()
                        if self.read("/proc", pid, "comm") == "criu-cli\n" and self.state(pid) not in "ZX")
        with open(f"/proc/{init}/task/{init}/children", encoding="ascii") as file:
            root = next(int(pid) for pid in file.read().split() if self.read("/proc", pid, "comm") == "sleep\n")
        self.assertRegex(self.read("/proc", str(root), "status"), rf"NSpid:.*\b{process.pid}\n")
        os.kill(root, signal.SIGTERM)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(init, 0)[1]), 0)
        self.assertIn(self.state(process.pid), "SR")
        self.fails("dump", "-t1", "--pidns", says="--pidns is available for the restore command only", usage=True)

    def test_dump(self):
        process, result = self.dump("--display-stats")
        self.assertEqual(process.wait(), -signal.SIGKILL)
        self.assertIn("Dumping finished successfully", self.read("images/dump.log").splitlines()[-1])
        self.assertNotIn("Error", self.read("images/dump.log"))
        self.assertTrue(os.path.exists(self.images + "/stats-dump"))
        lines = result.stdout.splitlines()
        self.assertEqual(lines[0], "Displaying dump stats:")
        self.assertRegex(lines[1], r"^Freezing time: \d+ us$")
        self.assertRegex(lines[7], r"^Memory pages written: (\d+) \(0x[0-9a-f]+\)$")
        self.assertEqual(len(lines), 9)

    def test_leave(self):
        process, _ = self.dump("-s", "-R")
        self.assertIn(self.state(process.pid), "SR")
        process, _ = self.dump("-R", "-s")
        self.wait_for(lambda: self.state(process.pid) == "T")

    def test_attached(self):
        process, _ = self.dump()
        pid = process.pid
        process.wait()
        criu = subprocess.Popen([CRIU, "restore", "-D", self.images, "-o", "restore.log", "-v4", "--pidfile", "pid"])
        self.addCleanup(self.end, pid)
        self.wait_for(lambda: "Restore finished successfully. Tasks resumed." in self.read_if("images/restore.log"))
        self.assertEqual(self.read("images/pid"), str(pid))
        self.assertEqual(stat.S_IMODE(os.stat(self.images + "/pid").st_mode), 0o600)
        self.assertIsNone(criu.poll())
        os.kill(pid, signal.SIGTERM)
        self.assertEqual(criu.wait(10), 0)

    def test_detached(self):
        process, _ = self.dump()
        process.wait()
        self.addCleanup(self.end, process.pid)
        result = self.run_criu("restore", "-d", "-D", "images", "-s", "--display-stats")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn("Restore time: ", result.stdout)
        self.wait_for(lambda: self.state(process.pid) == "T")
        self.assertTrue(os.path.exists(self.images + "/stats-restore"))

    def test_without_clone3(self):
        """Where a seccomp policy knows nothing of clone3, pids are given through ns_last_pid.

        In a pid namespace of its own: whoever else forks at that moment may get the pid instead, and thread ids are
        not tried for twice."""
        if os.getpid() != 1:
            result = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, __file__,
                                     self.id().split(".", 1)[1]], capture_output=True, text=True, timeout=60)
            self.assertEqual(result.returncode, 0, result.stderr)
            return
        script = ("import os, threading, time\n"
                  "os.fork()\n"
                  "threads = [threading.Thread(target=time.sleep, args=(1000,)) for _ in range(3)]\n"
                  "[thread.start() for thread in threads]\n"
                  "print(flush=True)\n"
                  "threads[0].join()\n")
        pr_set_child_subreaper = 36
        libc = ctypes.CDLL(None)
        libc.prctl(pr_set_child_subreaper, 1)
        self.addCleanup(libc.prctl, pr_set_child_subreaper, 0)
        for error in (errno.ENOSYS, errno.EPERM):
            with self.subTest(errno.errorcode[error]):
                ends = os.pipe()
                process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.DEVNULL, stdout=ends[1],
                                           stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)
                os.close(ends[1])
                self.addCleanup(self.end, process.pid, process)
                lines = 0
                while lines < 2:
                    lines += len(os.read(ends[0], 10))
                os.close(ends[0])
                child = int(self.read("/proc", str(process.pid), "task", str(process.pid), "children"))
                self.addCleanup(self.end, child)
                tree = [sorted(os.listdir("/proc/%d/task" % pid)) for pid in (process.pid, child)]
                self.assertEqual([len(tids) for tids in tree], [4, 4])
                result = self.run_criu("dump", "-t", str(process.pid), "-D", "images")
                self.assertEqual(result.returncode, 0, result)
                process.wait()
                os.waitpid(child, 0)  # a member of its group keeps the leader's pid taken
                result = self.run_criu("restore", "-d", "-v4", "-o", "restore.log", "-D", "images",
                                       preexec_fn=lambda: refuse_clone3(error))
                self.assertEqual(result.returncode, 0, result)
                self.assertIn("ns_last_pid", self.read("images/restore.log"))
                self.assertEqual([sorted(os.listdir("/proc/%d/task" % pid)) for pid in (process.pid, child)], tree)
                self.assertEqual(self.read("/proc", str(process.pid), "task", str(process.pid), "children").split(),
                                 [str(child)])
                for pid in (process.pid, child):
                    self.end(pid)
                    os.waitpid(pid, 0)

    def test_sibling(self):
        process, _ = self.dump()
        process.wait()
        result = self.run_criu("restore", "-d", "-S", "-D", "images")
        self.assertEqual(result.returncode, 0, result)
        os.kill(process.pid, signal.SIGTERM)
        self.assertEqual(os.waitpid(process.pid, 0), (process.pid, signal.SIGTERM))

    def test_exec(self):
        process, _ = self.dump()
        process.wait()
        self.addCleanup(self.end, process.pid)
        result = self.run_criu("restore", "-D", "images", "--exec-cmd", "--", "sh", "-c",
                               "read _ _ _ parent _ < /proc/%d/stat; test $parent = $$ && pwd && exit 42" % process.pid)
        self.assertEqual((result.returncode, result.stdout), (42, os.path.realpath(self.images) + "\n"), result)

    def test_a_pidfile_is_not_overwritten(self):
        process, _ = self.dump()
        process.wait()
        self.write("images/pid", "123")
        result = self.run_criu("restore", "-d", "-D", "images", "--pidfile", "pid")
        self.assertEqual(result.returncode, 1)
        self.assertIn("pid file", result.stderr)
        self.assertEqual(self.read("images/pid"), "123")
        self.assertFalse(os.path.exists("/proc/%d" % process.pid))

    def test_scripts(self):
        script = self.write("script", "#!/bin/sh\necho $CRTOOLS_SCRIPT_ACTION ${CRTOOLS_INIT_PID:-none} >> events\n", 0o700)
        process, _ = self.dump("--action-script", script)
        process.wait()
        self.addCleanup(self.end, process.pid)
        self.assertEqual(self.read("images/events").split()[::2], ["pre-dump", "post-dump"])
        os.unlink(self.images + "/events")
        self.assertEqual(self.run_criu("restore", "-d", "-D", "images", "--action-script", script).returncode, 0)
        pid = str(process.pid)
        self.assertEqual(self.read("images/events").split(), ["pre-restore", "none", "post-restore", pid, "pre-resume", pid,
                                                              "post-resume", pid])

    def test_a_script_after_the_dump_can_veto(self):
        script = self.write("script", "#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-dump ] || exit 7\n", 0o700)
        process, _ = self.dump("--action-script", script, code=255)
        self.assertIn(self.state(process.pid), "SR")

    def test_a_script_before_the_dump_can_veto(self):
        script = self.write("script", "#!/bin/sh\nexit 7\n", 0o700)
        process, result = self.dump("--action-script", script, code=1)
        self.assertIn("Pre dump script failed", result.stderr)
        self.assertIn(self.state(process.pid), "SR")
        self.assertIn("Dumping FAILED.", self.read("images/dump.log"))

    def test_a_sleep_that_ends_just_before_its_task_is_stopped(self):
        """The sleep is over, but the task, which has the lowest of priorities, has no processor to find that out: a
        script of the restore has it for itself, and after it the restore."""
        length, busy = 0.8, 0.15
        began = time.monotonic()
        process = subprocess.Popen(["setsid", "chrt", "--idle", "0", "sleep", str(length)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        self.addCleanup(self.end, process.pid, process)
        self.wait_for(lambda: self.read("/proc", str(process.pid), "wchan") == "hrtimer_nanosleep" and
                      self.read("/proc", str(process.pid), "comm") == "sleep\n")
        self.assertEqual(self.run_criu("dump", "-t", str(process.pid), "-D", "images").returncode, 0)
        process.wait()
        before = max(length - (time.monotonic() - began) - busy / 2, 0)
        spin = f"import time; end = time.monotonic() + {busy}\nwhile time.monotonic() < end: pass"
        script = self.write("script", "#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION = post-restore ] || exit 0\n"
                            f"sleep {before}\nexec {sys.executable} -c '{spin}'\n", 0o700)
        processor = min(os.sched_getaffinity(0))

        def go_before_others():
            os.sched_setaffinity(0, {processor})
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(40))
        result = self.run_criu("restore", "-d", "-D", "images", "--action-script", script, preexec_fn=go_before_others)
        self.addCleanup(self.end, process.pid)
        self.assertEqual(result.returncode, 0, result)
        self.wait_for(lambda: not os.path.exists(f"/proc/{process.pid}") or self.state(process.pid) == "Z")

    def test_affinity(self):
        """A thread's processors are saved, and come back when they are asked for."""
        mine = os.sched_getaffinity(0)
        if len(mine) < 2:
            self.skipTest("this machine has one processor")
        one, other = {min(mine)}, {max(mine)}
        process = self.victim()
        os.sched_setaffinity(process.pid, one)
        for option, expected in (("--affinity", one), ("--no-affinity", mine), ("--affinity", mine)):
            result = self.run_criu("dump", "-t", str(process.pid), "-D", "images")
            self.assertEqual(result.returncode, 0, result)
            os.waitpid(process.pid, 0)
            result = self.run_criu("restore", "-d", "-S", option, "-D", "images",
                                   preexec_fn=lambda: option == "--affinity" and os.sched_setaffinity(0, other))
            self.assertEqual(result.returncode, 0, result)
            self.assertEqual(os.sched_getaffinity(process.pid), expected)

    def test_a_stopped_tree_stays_stopped(self):
        process = self.victim()
        os.kill(process.pid, signal.SIGSTOP)
        self.wait_for(lambda: self.state(process.pid) == "T")
        result = self.run_criu("dump", "-t", str(process.pid), "-D", "images", "-R")
        self.assertEqual(result.returncode, 0, result)
        self.wait_for(lambda: self.state(process.pid) == "T")  # let go, it stops by itself
        for _ in range(2):
            result = self.run_criu("dump", "-t", str(process.pid), "-D", "images")
            self.assertEqual(result.returncode, 0, result)
            os.waitpid(process.pid, 0)
            result = self.run_criu("restore", "-d", "-S", "-D", "images")
            self.assertEqual(result.returncode, 0, result)
            self.wait_for(lambda: self.state(process.pid) == "T")
        os.kill(process.pid, signal.SIGCONT)
        self.wait_for(lambda: self.state(process.pid) == "S")

    def test_timeout(self):
        """Who waits for the child of its vfork cannot be stopped."""
        process = subprocess.Popen(
            [sys.executable, "-c", "import ctypes, os\n"
             "libc = ctypes.PyDLL(None)\n"
             "if libc.vfork() == 0: libc.pause()\n"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)
        self.addCleanup(self.end, process.pid, process)
        children = "/proc/%d/task/%d/children" % (process.pid, process.pid)
        self.wait_for(lambda: self.read(children) != "" and self.state(process.pid) == "D")
        child = int(self.read(children))
        self.addCleanup(self.end, child)
        began = time.monotonic()
        self.fails("dump", "-t", str(process.pid), "-D", "images", "--timeout", "1", says="vfork")
        self.assertLess(time.monotonic() - began, 8)
        self.assertEqual(self.state(process.pid), "D")
        self.assertIn("TracerPid:\t0", self.read("/proc", str(process.pid), "status"))

    def test_32_bit(self):
        """A program of 32 bits, made here: int 0x80 with the number of pause, for ever."""
        code = bytes([0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7])
        base = 0x10000
        header = b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + 84, 52, 0, 0, 52, 32, 1,
                                                                   0, 0, 0)
        segment = struct.pack("<IIIIIIII", 1, 0, base, base, 84 + len(code), 84 + len(code), 5, 4096)
        path = os.path.join(self.dir, "program")
        with open(path, "wb") as file:
            file.write(header + segment + code)
        os.chmod(path, 0o700)
        try:
            process = subprocess.Popen([path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)
        except OSError as error:
            self.skipTest("this kernel runs no 32-bit programs: %s" % error)
        self.addCleanup(self.end, process.pid, process)
        self.wait_for(lambda: self.state(process.pid) == "S")
        result = self.run_criu("check", "-t", str(process.pid))
        self.assertEqual(result.returncode, 1)
        self.assertIn("32-bit", result.stdout)
        self.fails("dump", "-t", str(process.pid), "-D", "images", says="32-bit tasks are not supported")
        self.assertEqual(self.state(process.pid), "S")

    def test_a_traced_task(self):
        if shutil.which("strace") is None:
            self.skipTest("no strace here")
        process = self.victim()
        tracer = subprocess.Popen(["strace", "-o", "/dev/null", "-p", str(process.pid)], stderr=subprocess.DEVNULL)
        self.addCleanup(tracer.wait)
        self.addCleanup(tracer.terminate)
        self.wait_for(lambda: "TracerPid:\t%d" % tracer.pid in self.read("/proc", str(process.pid), "status"))
        self.assertIn("traced by task %d" % tracer.pid, self.run_criu("check", "-t", str(process.pid)).stdout)
        self.fails("dump", "-t", str(process.pid), "-D", "images", says=str(tracer.pid))
        self.assertIn(self.state(process.pid), "SRt")

    def test_check_looks_at_the_children_of_every_thread(self):
        process = self.program(
            "import ctypes, os, threading, time\n"
            "def child():\n"
            "  if os.fork() == 0: ctypes.CDLL(None).syscall(323, 0); print('ready', flush=True); time.sleep(1000)\n"
            "  time.sleep(1000)\n"
            "threading.Thread(target=child, daemon=True).start()\n"
            "time.sleep(1000)\n")
        tasks = "/proc/%d/task" % process.pid
        child = int("".join(self.read(tasks, tid, "children") for tid in os.listdir(tasks)))
        self.addCleanup(self.end, child)
        self.assertIn("of task %d" % child, self.run_criu("check", "-t", str(process.pid)).stdout)

    def test_check_tells_of_threads_what_a_dump_does(self):
        process = self.program(
            "import ctypes, os, signal, threading, time\n"
            "libc = ctypes.CDLL(None)\n"
            "def apart(): libc.unshare(0x200); print('ready', flush=True); time.sleep(1000)\n"
            "threading.Thread(target=apart, daemon=True).start()\n"
            "time.sleep(1000)\n")
        check = self.run_criu("check", "-t", str(process.pid))
        self.assertEqual(check.returncode, 1, check)
        self.assertIn("has a working directory and umask of its own", check.stdout)
        dump = self.run_criu("dump", "-t", str(process.pid), "-D", "images")
        self.assertEqual(dump.returncode, 1, dump)
        self.assertIn("has a working directory and umask of its own", dump.stderr)

    def test_no_such_process(self):
        process = self.victim()
        self.end(process.pid, process)
        self.fails("dump", "-t", str(process.pid), "-D", "images", "-o", "a.log", says=str(process.pid))

    def test_a_tree_that_it_is_in(self):
        for command in ("dump", "pre-dump"):
            script = f'{CRIU} {command} -t $$ -D {self.images} -o log; echo $?; :'
            done = subprocess.run(["setsid", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=60, check=True)
            self.assertIn("within dumped tree", done.stdout)
            self.assertEqual(done.stdout.split()[-1], "1")

    def test_check_of_a_tree(self):
        process = self.victim()
        result = self.run_criu("check", "-t", str(process.pid))
        self.assertEqual((result.returncode, result.stdout), (0, "%d can be dumped\n" % process.pid), result)
        self.assertIn(self.state(process.pid), "SR")

    def program(self, text, *args):
        """A python program in a session of its own, that has said "ready" on its output."""
        process = subprocess.Popen(["python3", "-c", text, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL, cwd="/", start_new_session=True)
        self.addCleanup(self.end, process.pid, process)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        process.stdout.close()
        return process

    def test_check_and_dump_name_all_that_is_in_the_way(self):
        process = self.program(
            "import ctypes, os, sys, time\n"
            "userfaultfd = 323; ctypes.CDLL(None).syscall(userfaultfd, 0); ctypes.CDLL(None).syscall(userfaultfd, 0)\n"
            "gone = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); os.unlink(sys.argv[1]); os.write(gone, b'x' * (2 << 20))\n"
            "print('ready', flush=True); os.dup2(os.open('/dev/null', os.O_RDWR), 1)\n"
            "while True: time.sleep(1000)\n", os.path.join(self.dir, "gone"))
        result = self.run_criu("check", "-t", str(process.pid))
        self.assertEqual(result.returncode, 1, result)
        lines = result.stdout.splitlines()
        self.assertEqual(len(lines), 3, lines)
        self.assertRegex(lines[0], r"fd 3 of task %d .*userfaultfd" % process.pid)
        self.assertRegex(lines[1], r"fd 4 of task %d .*userfaultfd" % process.pid)
        self.assertIn("--ghost-limit", lines[2])
        self.assertIn(self.state(process.pid), "SR")
        self.assertEqual(os.listdir(self.images), [])
        dump = self.run_criu("dump", "-t", str(process.pid), "-D", "images")
        self.assertEqual(dump.returncode, 1)
        for line in lines:
            self.assertIn(line, dump.stderr)
        self.assertIn(self.state(process.pid), "SR")
        self.assertFalse(os.path.exists(self.images + "/inventory.img"))

    def test_shell_job(self):
        """A tree whose session is led from outside: refused by name, or joined to the session of who restores it."""
        process = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, cwd="/")
        self.addCleanup(self.end, process.pid, process)
        while self.read("/proc", str(process.pid), "comm") != "sleep\n":
            pass
        self.fails("dump", "-t", str(process.pid), "-D", "images", says="--shell-job")
        self.wait_for(lambda: self.state(process.pid) == "S")  # it may still be bringing in its program
        for _ in range(2):
            result = self.run_criu("dump", "-t", str(process.pid), "-D", "images", "--shell-job")
            self.assertEqual(result.returncode, 0, result)
            os.waitpid(process.pid, 0)
            self.fails("restore", "-d", "-D", "images", says="--shell-job")
            result = self.run_criu("restore", "-d", "-S", "-j", "-D", "images")
            self.assertEqual(result.returncode, 0, result)
            self.assertEqual((os.getsid(process.pid), os.getpgid(process.pid)), (os.getsid(0), os.getpgid(0)))
        os.kill(process.pid, signal.SIGTERM)
        self.assertEqual(os.waitpid(process.pid, 0)[1], signal.SIGTERM)

    def test_the_vdso_of_another_kernel(self):
        """Forced by CRIU's own test hook; three rounds, since a later dump must know the proxy for what it is."""
        process = self.program(
            "import os, signal, sys, time\n"
            "def tell(*_):\n"
            "  open(sys.argv[1], 'w').write(str(time.time())); os._exit(0)\n"
            "signal.signal(signal.SIGUSR1, tell)\n"
            "time.time(); time.monotonic()\n"
            "print('ready', flush=True); os.dup2(os.open('/dev/null', os.O_RDWR), 1)\n"
            "while True: time.time(); time.monotonic(); time.sleep(.01)\n", os.path.join(self.dir, "time"))
        pid = str(process.pid)

        def vdso():
            return [line.split("-")[0] for line in self.read("/proc", pid, "maps").splitlines() if "[vdso]" in line]

        before = vdso()
        for _ in range(3):
            result = self.run_criu("dump", "-t", pid, "-D", "images")
            self.assertEqual(result.returncode, 0, result)
            os.waitpid(process.pid, 0)
            result = self.run_criu("restore", "-d", "-S", "-D", "images", env={"CRIU_FAULT": "127"})
            self.assertEqual(result.returncode, 0, result)
            self.assertEqual(len(vdso()), 1)
            self.assertNotEqual(vdso(), before)
            self.assertIn(before[0] + "-", self.read("/proc", pid, "maps"))
        os.kill(process.pid, signal.SIGUSR1)
        self.assertEqual(os.waitpid(process.pid, 0)[1], 0)
        self.assertLess(abs(float(self.read("time")) - time.time()), 60)

    def read_if(self, name):
        return self.read(name) if os.path.exists(os.path.join(self.dir, name)) else ""

    def wait_for(self, condition):
        deadline = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)


if __name__ == "__main__":
    unittest.main()
