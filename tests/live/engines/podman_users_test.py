#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Containers of podman with users of their own, checkpointed and restored by podman itself.

podman_users_test.py [CASE...]     $CRIU_CLI is the program; as root
"""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import podman_test  # noqa: E402

MAP = "0:100000:65536"


class PodmanUsers(podman_test.PodmanCase):
    def test_rounds(self):
        os.chmod(self.base, 0o755)
        self.run_container("one", "sh", "-c", podman_test.COUNT, options=("--uidmap", MAP, "--gidmap", MAP))
        last = self.count("one", 5)
        for _ in range(3):
            self.podman("container", "checkpoint", "one")
            self.assertFalse(self.state("one")["Running"])
            self.podman("container", "restore", "one")
            last = self.count("one", last)
        for ids in ("uid_map", "gid_map"):
            self.assertEqual(self.podman("exec", "one", "cat", f"/proc/1/{ids}").split(), MAP.split(":"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
