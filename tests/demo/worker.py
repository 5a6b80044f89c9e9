#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""What the demo checkpoints: threads that count, an open log, and a child behind a pipe. usage: worker.py DIR"""
import os
import subprocess
import sys
import threading
import time

directory = sys.argv[1]
counts = [0, 0]


def count(which):
    while True:
        counts[which] += 1
        time.sleep(0.01)


for which in (0, 1):
    threading.Thread(target=count, args=(which,), daemon=True).start()
child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
log = open(os.path.join(directory, "log"), "a", buffering=1)
step = 0
while True:
    step += 1
    child.stdin.write(b"%d\n" % step)
    child.stdin.flush()
    echo = int(child.stdout.readline())
    log.write(f"step {step}: threads counted to {counts[0]} and {counts[1]}, the child echoed {echo}\n")
    time.sleep(0.2)
