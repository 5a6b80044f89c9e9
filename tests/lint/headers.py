#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Checks that each tracked file says the licence of its directory, and that its text is in LICENSES/."""
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RULES = (("images/", "MIT"),) + tuple(
    (room, "LGPL-2.1-only") for room in ("libcompel/", "libsoccr/", "libcriu/", "libcriu-core/", "arch/", "base/"))
DEFAULT = "GPL-2.0-only"  # programs, tests, the build
TAG = "SPDX-License-Identifier:"
# The licence texts themselves, and recorded data, which has no place for a comment.
EXEMPT = ("LICENSES/",)
EXEMPT_SUFFIXES = (".json", ".bin", ".img", ".png")


def expected(name):
    return next((licence for prefix, licence in RULES if name.startswith(prefix)), DEFAULT)


def main():
    names = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
    problems = []
    for name in filter(None, names):
        path = os.path.join(ROOT, name)
        if name.startswith(EXEMPT) or name.endswith(EXEMPT_SUFFIXES) or os.path.islink(path) or not os.path.exists(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as file:
            head = [file.readline() for _ in range(2)]
        # The first line, or the second behind a #! line.
        line = head[1] if head[0].startswith("#!") else head[0]
        want = expected(name)
        if TAG not in line:
            problems.append(f"{name}: no licence line (want {want})")
        elif (found := line.split(TAG)[1].split()[0]) != want:
            problems.append(f"{name}: says {found}, files here are {want}")
        if not os.path.exists(os.path.join(ROOT, "LICENSES", want + ".txt")):
            problems.append(f"LICENSES/{want}.txt is missing")
    print("\n".join(problems) if problems else "licence headers: in place")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
