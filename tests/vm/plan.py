#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""The tests of a build directory as a script for the test machine, and what it printed as meson's log of tests.

usage: plan.py script BUILD-DIR [NAME...] [-- ARGUMENT...]   tests by name, with further arguments for them
       plan.py log OUTPUT                                    a testlog.json
"""
import json
import os
import re
import shlex
import subprocess
import sys

# The kernel has no part in these, or they play once more what others do.
NOT_BY_DEFAULT = ("include-rules", "include-rules-self-test", "fuzz-replay", "interop-roundtrip", "interop-values",
                  "live-dry", "live-rounds", "install")
# How much slower than a real machine an emulated one may be.
SLOWNESS = 5

HEAD = """export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
cd {build}
echo "vm: $(uname -srv)"
run() {{
  name=$1 limit=$2
  shift 2
  read -r before rest </proc/uptime
  echo "vm: begin $name"
  timeout -k 5 "$limit" "$@" </dev/null
  status=$?
  read -r after rest </proc/uptime
  echo "vm: end $name $status $((${{after%.*}} - ${{before%.*}}))"
}}
"""


def script(build, arguments):
    build = os.path.realpath(build)
    names, more = arguments, []
    if "--" in arguments:
        at = arguments.index("--")
        names, more = arguments[:at], arguments[at + 1:]
    tests = json.loads(subprocess.run(["meson", "introspect", "--tests", build], capture_output=True, check=True).stdout)
    unknown = set(names) - {test["name"] for test in tests}
    if unknown:
        sys.exit("vm-test: no such test: " + ", ".join(sorted(unknown)))
    lines = [HEAD.format(build=shlex.quote(build))]
    for test in tests:
        if test["name"] in names or not names and test["name"] not in NOT_BY_DEFAULT:
            environment = [f"{name}={value}" for name, value in test["env"].items()]
            command = ["run", test["name"], str(test["timeout"] * SLOWNESS), "env", *environment, *test["cmd"], *more]
            lines.append(shlex.join(command) + "\n")
    lines.append("echo vm: done\nbusybox poweroff -f\n")
    print("".join(lines))


def log(output):
    with open(output, encoding="utf-8", errors="replace") as file:
        text = file.read()
    for match in re.finditer(r"^vm: begin (\S+)\n(.*?)(?=^vm: (?:begin|done)|\Z)", text, re.M | re.S):
        # The output of a program may lack its last end of line.
        end = re.search(r"vm: end \S+ (\d+) \d+$", match[2], re.M)
        status = int(end[1]) if end else -1
        # As timeout(1) and meson say it.
        result = {0: "OK", 77: "SKIP", 124: "TIMEOUT", 137: "TIMEOUT"}.get(status, "FAIL" if end else "INTERRUPT")
        print(json.dumps({"name": match[1], "result": result, "stdout": match[2]}))
    if not re.search(r"^vm: done$", text, re.M):
        print(json.dumps({"name": "the machine", "result": "INTERRUPT", "stdout": ""}))


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("script", "log"):
        sys.exit(__doc__)
    if sys.argv[1] == "script":
        script(sys.argv[2], sys.argv[3:])
    else:
        log(sys.argv[2])
