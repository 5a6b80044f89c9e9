#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""An interpreter at work: threads that count under a lock and through a queue, a child behind a pipe, an open file."""
import os
import queue
import subprocess
import sys
import threading

directory = sys.argv[1]
lock = threading.Lock()
counts = {"a": 0, "b": 0}
jobs, results = queue.Queue(4), queue.Queue()


def count(name):
    while True:
        with lock:
            counts[name] += 1
            counts.setdefault("sum", 0)
            counts["sum"] += 1


def work():
    while True:
        n = jobs.get()
        results.put((n, sum(range(n))))


for target, arguments in ((count, ("a",)), (count, ("b",)), (work, ()), (work, ())):
    threading.Thread(target=target, args=arguments, daemon=True).start()
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
log = open(os.path.join(directory, "log"), "w+", buffering=1)
data = bytearray(os.urandom(1 << 20))
total = sum(data)


def put(name, text):
    path = os.path.join(directory, name)
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def step(n):
    for i in range(4):
        jobs.put(n + i)
    for _ in range(4):
        m, value = results.get()
        assert value == m * (m - 1) // 2, f"sum below {m} is {value}"
    child.stdin.write(b"%d\n" % n)
    child.stdin.flush()
    assert child.stdout.readline() == b"%d\n" % n, "the child answered something else"
    log.write(f"{n}\n")


def check(n):
    with lock:
        assert counts["a"] + counts["b"] == counts["sum"], f"lost counts: {counts}"
    log.seek(0)
    lines = log.read().split()
    log.seek(0, os.SEEK_END)
    assert lines == [str(i) for i in range(n + 1)], "the log has lost lines"
    assert sum(data) == total, "memory changed"


number = 0
while True:
    found = "ok"
    try:
        step(number)
        if os.path.exists(os.path.join(directory, "go")):
            check(number)
    except Exception as error:  # whatever it is, it is what the report is for
        found = f"BAD {error!r}"
    if number == 0:
        put("ready", str(os.getpid()))
    if found != "ok" or os.path.exists(os.path.join(directory, "go")):
        if os.path.exists(os.path.join(directory, "go")):
            os.unlink(os.path.join(directory, "go"))
        put("report", f"step {number} {found}\n")
    number += 1
