#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Turns meson's test log into what failed and why, a last line, `N passed, N failed[, N skipped]`, and an exit status.

usage: summary.py testlog.json

A program that runs many tests says in its output how many: in TAP ("ok 1 - name"), or as Catch2 ends ("3 test cases").
Any other program is one test. Whatever the output says, a program that meson calls failed counts as one failure at
least, so that a crash after the last "ok" is not lost.
"""
import json
import re
import sys

TAP = re.compile(r"^(not )?ok\b(?: +\d+)?(?: *-? *(?P<what>[^#\n]*))?(?P<directive># *(?:skip|todo)[^\n]*)?", re.I | re.M)
CATCH_ALL = re.compile(r"^All tests passed \(.* in (\d+) test cases?\)", re.M)
LINES_OF_A_FAILURE = 12
CATCH_SOME = re.compile(r"^test cases: +(\d+)(?: *\| *(\d+) passed)?(?: *\| *(\d+) failed)?", re.M)


def counts(result, output):
    """(passed, failed, skipped) of one test program."""
    if result == "SKIP":
        return 0, 0, 1
    passed = failed = skipped = 0
    if re.search(r"^1\.\.\d+", output, re.M):
        for line in TAP.finditer(output):
            if line["directive"]:
                skipped += 1
            elif line[1]:
                failed += 1
            else:
                passed += 1
    elif match := CATCH_ALL.search(output):
        passed = int(match[1])
    elif match := CATCH_SOME.search(output):
        passed, failed = int(match[2] or 0), int(match[3] or 0)
    elif result in ("OK", "EXPECTEDFAIL"):
        passed = 1
    if result not in ("OK", "EXPECTEDFAIL") and failed == 0:
        failed = 1
    return passed, failed, skipped


def reasons(output):
    """The tests of a program that failed, with the end of what each says about it."""
    lines = output.splitlines()
    for at, line in enumerate(lines):
        if re.match(r"not ok\b(?!.*# *(?:skip|todo))", line, re.I):
            said = []
            for more in lines[at + 1:]:
                if not more.startswith("#"):
                    break
                said.append(f"    {more}")
            yield "\n".join([f"  {line}", *said[-LINES_OF_A_FAILURE:]])


def main():
    try:
        with open(sys.argv[1], encoding="utf-8") as log:
            tests = [json.loads(line) for line in log if line.strip()]
    except FileNotFoundError:
        tests = []
    total = [0, 0, 0]
    for test in tests:
        for i, n in enumerate(counts(test["result"], test.get("stdout", ""))):
            total[i] += n
    passed, failed, skipped = total
    for test in tests:
        if test["result"] == "SKIP":
            print(f"skipped: {test['name']}")
        elif test["result"] not in ("OK", "EXPECTEDFAIL"):
            print(f"failed: {test['name']} ({test['result'].lower()})")
            for reason in reasons(test.get("stdout", "")):
                print(reason)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
