#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""CRIU 4.2's own checkpoint of `sleep 100000` goes on here. usage: restore_sleep.py CRIU-CLI SOURCE-ROOT

Needs the sample beside the source tree (or at $CRIU_SHARED) and the very `sleep` it was made of: a program is checked
by size and build id before it is restored."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

PID = 31502


def skip(why):
    print("SKIPPED:", why)
    sys.exit(77)


def working_directory(sample):
    """Where it was checkpointed, as CRIU's own tool shows it."""
    entries = lambda name: json.load(open(os.path.join(sample, "json", name + ".img.json")))["entries"]
    cwd = entries(f"fs-{PID}")[0]["cwd_id"]
    return next(file["reg"]["name"] for file in entries("files") if file["id"] == cwd)


def made_directories(path):
    """Creates the directory; returns those that were not there, the innermost first."""
    made = []
    while not os.path.isdir(path):
        made.append(path)
        path = os.path.dirname(path)
    for each in reversed(made):
        os.mkdir(each)
    return made


def inside(criu, images, cwd):
    """In a pid namespace of its own, where pid 31502 is free."""
    result = subprocess.run([criu, "restore", "-d", "-D", images, "-v4", "-o", "restore.log"], text=True,
                            stderr=subprocess.PIPE)
    if result.returncode != 0:
        print(result.stderr, open(images + "/restore.log").read())
        return 1
    read = lambda name: open(f"/proc/{PID}/{name}").read()
    found = (read("comm").strip(), read("cmdline"), os.readlink(f"/proc/{PID}/exe"), os.readlink(f"/proc/{PID}/cwd"))
    print(found)
    if found != ("sleep", "/bin/sleep\x00" "100000\x00", "/usr/bin/sleep", cwd):
        return 1
    os.kill(PID, 0)
    return 0


def main(criu, source):
    shared = os.environ.get("CRIU_SHARED", os.path.join(source, "..", "shared"))
    sample = os.path.join(shared, "samples", "sleep")
    if not os.path.isdir(sample):
        skip("no samples at " + shared)
    if os.stat("/usr/bin/sleep").st_size != 43888:
        skip("this is not the sleep of the sample")
    scratch = tempfile.mkdtemp(prefix="criu-interop-")
    images = os.path.join(scratch, "img")
    shutil.copytree(os.path.join(sample, "img"), images)
    os.chmod(images, 0o700)
    cwd = working_directory(sample)
    made = made_directories(cwd)
    try:
        return subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, __file__,
                               "--inside", criu, images, cwd]).returncode
    finally:
        for each in made:
            os.rmdir(each)
        shutil.rmtree(scratch)


if sys.argv[1] == "--inside":
    sys.exit(inside(*sys.argv[2:]))
sys.exit(main(*sys.argv[1:]))
