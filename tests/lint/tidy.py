#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""clang-tidy over our own sources of a compile database; what was clean and has not changed is not asked again.

usage: tidy.py --build DIR [--jobs N]
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def fingerprint(entry):
    """The preprocessed source, the checks and the command: the same means the same findings."""
    command = entry["command"].split()
    arguments = []
    skip = False
    for part in command:
        if skip:
            skip = False
        elif part in ("-o", "-MF", "-MQ", "-MT"):
            skip = True
        elif part not in ("-c", "-MD", "ccache"):
            arguments.append(part)
    text = subprocess.run(arguments + ["-E", "-P"], cwd=entry["directory"], capture_output=True, check=False).stdout
    digest = hashlib.sha256(text)
    with open(os.path.join(ROOT, ".clang-tidy"), "rb") as checks:
        digest.update(checks.read())
    with open(os.path.join(entry["directory"], entry["file"]), "rb") as source:
        digest.update(source.read())  # NOLINT comments are lost in preprocessing
    return digest.hexdigest()


def tidy(entry, build, cache):
    source = os.path.normpath(os.path.join(entry["directory"], entry["file"]))
    stamp = os.path.join(cache, fingerprint(entry))
    if os.path.exists(stamp):
        return None
    run = subprocess.run(["clang-tidy", "--quiet", "-p", build, source], capture_output=True, text=True, check=False)
    if run.returncode == 0:
        open(stamp, "w", encoding="utf-8").close()
        return None
    return f"== {os.path.relpath(source, ROOT)}\n{run.stdout}{run.stderr}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    args = parser.parse_args()
    with open(os.path.join(args.build, "compile_commands.json"), encoding="utf-8") as file:
        database = json.load(file)
    build = os.path.abspath(args.build)
    cache = os.path.join(build, "tidy-clean")
    os.makedirs(cache, exist_ok=True)
    # A source in two targets is asked once; generated sources are not ours to format or judge.
    sources = {}
    for entry in database:
        path = os.path.normpath(os.path.join(entry["directory"], entry["file"]))
        if path.startswith(ROOT + "/") and not path.startswith(build + "/") and not path.endswith((".S", ".pb.cc")):
            sources.setdefault(path, entry)
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        findings = [found for found in pool.map(lambda e: tidy(e, build, cache), sources.values()) if found]
    print("\n".join(findings) if findings else f"clang-tidy: {len(sources)} files clean")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
