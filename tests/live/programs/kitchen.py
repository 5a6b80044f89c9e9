#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Runs the kitchen.py of the samples without the sections that are named behind the directory.

usage: kitchen.py DIR [SECTION...]   (a section is named by the start of its heading, "sockets")
"""
import os
import re
import sys

directory, left_out = sys.argv[1], tuple(sys.argv[2:])
root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
kitchen = os.path.join(os.environ.get("CRIU_SHARED", os.path.join(root, "..", "shared")), "samples", "kitchen.py")
if not os.path.exists(kitchen):
    with open(os.path.join(directory, "skipped"), "w", encoding="utf-8") as file:
        file.write("no samples of CRIU 4.2 here (CRIU_SHARED)")
    sys.exit(0)
with open(kitchen, encoding="utf-8") as file:
    sections = re.split(r"^(?=# )", file.read(), flags=re.M)
text = "".join(section for section in sections if not section.startswith(tuple("# " + name for name in left_out)))
sys.argv = [kitchen, directory, "no-net"]
exec(compile(text, kitchen, "exec"))
