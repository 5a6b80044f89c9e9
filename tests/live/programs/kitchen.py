#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs the kitchen.py of the samples without what is named behind the directory.

usage: kitchen.py DIR [SECTION|=WORD...]
  SECTION: the start of a section's heading ("sockets")
  =WORD: the statements that have this word in them ("=inotify")
"""
import os
import re
import sys

directory = sys.argv[1]
left_out = tuple("# " + name for name in sys.argv[2:] if name[0] != "=")
words = tuple(name[1:] for name in sys.argv[2:] if name[0] == "=")
root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
kitchen = os.path.join(os.environ.get("CRIU_SHARED", os.path.join(root, "..", "shared")), "samples", "kitchen.py")
if not os.path.exists(kitchen):
    with open(os.path.join(directory, "skipped"), "w", encoding="utf-8") as file:
        file.write("no samples of CRIU 4.2 here (CRIU_SHARED)")
    sys.exit(0)
with open(kitchen, encoding="utf-8") as file:
    sections = re.split(r"^(?=# )", file.read(), flags=re.M)
text = "".join(section for section in sections if not section.startswith(left_out))


def without_words(line):
    if not any(word in line for word in words):
        return line
    return "; ".join(part for part in line.split("; ") if not any(word in part for word in words))


text = "\n".join(without_words(line) for line in text.split("\n"))
sys.argv = [kitchen, directory]
exec(compile(text, kitchen, "exec"))
