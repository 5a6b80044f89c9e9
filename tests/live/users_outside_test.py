#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A dump and a restore by the root of a user namespace, who is nobody outside.

users_outside_test.py [CASE...]     runs the program named by $CRIU_CLI, as root
"""
import os
import shutil
import subprocess
import tempfile
import unittest

CRIU = os.environ["CRIU_CLI"]
FIRST, COUNT = 100000, 65536
# A process that says its pid, and goes on by itself.
SLEEPER = "setsid -f sh -c 'echo $$ >pid.new; mv pid.new pid; exec sleep 1000' </dev/null >/dev/null 2>&1\n" \
          "while ! [ -e pid ]; do :; done\n"
CHECK = "grep -q '^Uid:.0' /proc/$(cat pid)/status && [ $(cat /proc/$(cat pid)/comm) = sleep ] && echo well\n"


class RootOfUsers(unittest.TestCase):
    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="criu-live-users-")
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        os.mkdir(self.base + "/images")
        for path in (self.base, self.base + "/images"):
            os.chmod(path, 0o777)

    def run_shell(self, script, users):
        """In a pid namespace, and in a user namespace or not. What it prints, and its errors."""
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", script]
        if not users:
            return self.finish(command)
        with subprocess.Popen(["unshare", "--user", "sh", "-c", "echo; read end"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE) as holder:
            holder.stdout.readline()
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{holder.pid}/{name}", "w", encoding="ascii") as file:
                    file.write(f"0 {FIRST} {COUNT}")
            return self.finish(["nsenter", "--user", "--target", str(holder.pid), "--setuid", "0", "--setgid", "0",
                                *command])

    def finish(self, command):
        done = subprocess.run(command, cwd=self.base, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout, done.stderr

    def test_dump_is_refused(self):
        said, errors = self.run_shell(SLEEPER + f"{CRIU} dump -t $(cat pid) -D images || echo failed\n" + CHECK, True)
        self.assertEqual(said, "failed\nwell\n", errors)
        self.assertIn("CAP_CHECKPOINT_RESTORE outside of all user namespaces", errors)
        self.assertFalse(os.path.exists(self.base + "/images/inventory.img"))

    def test_restore(self):
        said, errors = self.run_shell(SLEEPER + f"{CRIU} dump -t $(cat pid) -D images && echo dumped", False)
        self.assertEqual(said, "dumped\n", errors)
        for name in os.listdir(self.base + "/images"):
            os.chmod(f"{self.base}/images/{name}", 0o644)
        said, errors = self.run_shell(f"{CRIU} restore -d -D images\n" + CHECK, True)
        self.assertEqual(said, "well\n", errors)

    def test_existing_users_cannot_be_joined(self):
        done = subprocess.run([CRIU, "restore", "-D", self.base + "/images", "--join-ns", f"user:{os.getpid()}"],
                              capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("--join-ns: not supported by this version yet", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
