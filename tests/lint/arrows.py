#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only
"""Enforces who may include whom (docs/architecture.md), and what freestanding code may include.

usage: arrows.py --root DIR     check a source tree
       arrows.py --self-test    prove that each rule finds its violation
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

SUFFIXES = (".cpp", ".hpp", ".c", ".h", ".S", ".inc")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^">]+)[">]', re.M)

# Rooms in the order in which a path is matched, each with the rooms it may include from. Every room sees itself.
ROOMS = {
    "tests": None,  # sees everything
    "base": (),
    "arch": ("base",),
    "images": (),
    "libcompel": ("arch", "base"),
    "libsoccr": ("arch", "base"),
    "libcriu": (),
    "libcriu-core": ("libcompel", "libsoccr", "arch", "base", "images"),
    "tools/crit": ("libcriu-core", "base", "images"),
    "tools/coredump": ("tools/crit", "base", "images"),
    "tools": ("libcriu-core", "libcompel", "libsoccr", "base"),
}
LIBRARIES = ("libcompel", "libsoccr", "libcriu", "libcriu-core")
# What a CPU's folder gives to one library alone stands with that library: the core image, the way into a task.
SIDES_OF_ARCH = ((re.compile(r"^arch/[^/]+/core/"), "libcriu-core"), (re.compile(r"^arch/[^/]+/compel/"), "libcompel"))

FREESTANDING = ("libcompel/runtime/", "libcriu-core/src/parasite/", "libcriu-core/src/restorer/")
FREESTANDING_HEADERS = {
    "atomic", "bit", "cfloat", "climits", "compare", "concepts", "cstdarg", "cstddef", "cstdint", "initializer_list",
    "limits", "limits.h", "new", "stdarg.h", "stdbool.h", "stddef.h", "stdint.h", "type_traits", "version",
    "cpuid.h", "immintrin.h", "x86intrin.h",
    # Numbers and structures; a call to what they declare would not link.
    "elf.h", "sys/resource.h", "sys/syscall.h",
}
# A room whose meson.build links blobs says by that which of its sources are freestanding; what these don't reach is
# the side of the room that stays outside.
BLOB = re.compile(r"executable\(\s*'[^']*\.elf'\s*,((?:\s*'[^']*\.(?:cpp|S|c)'\s*,?)+)")
FREESTANDING_PREFIXES = ("linux/", "asm/", "asm-generic/")


def tracked(root):
    listed = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard"], capture_output=True, text=True)
    if listed.returncode == 0 and listed.stdout:
        names = [name for name in listed.stdout.splitlines() if os.path.exists(os.path.join(root, name))]
    else:
        names = []
        for where, dirs, files in os.walk(root):
            dirs[:] = [d for d in dirs if not d.startswith((".", "build"))]
            names += [os.path.relpath(os.path.join(where, f), root) for f in files]
    return [name for name in names if name.endswith(SUFFIXES)]


def room_of(path):
    for side, library in SIDES_OF_ARCH:
        if side.match(path):
            return library
    for room in ROOMS:
        if path.startswith(room + "/"):
            return room
    return None


def is_public(path):
    return "/include/" in path


class Tree:
    def __init__(self, root):
        self.root = root
        self.files = tracked(root)
        self.known = set(self.files)
        self.text = {}
        for name in self.files:
            with open(os.path.join(root, name), encoding="utf-8", errors="replace") as file:
                self.text[name] = file.read()

    def includes(self, name):
        for match in INCLUDE.finditer(self.text[name]):
            yield self.text[name].count("\n", 0, match.start()) + 1, match[2], match[1] == '"'

    def resolve(self, included, source, quoted):
        """The file of this tree that an #include means, as the compiler's include paths would find it, or None."""
        if quoted:
            beside = os.path.normpath(os.path.join(os.path.dirname(source), included))
            if beside in self.known:
                return beside
        found = [name for name in self.files if name.endswith("/" + included)]
        roots = [name for name in found if re.search(r"(^|/)(include|src|runtime)$|^tools/[^/]+$", name[: -len(included) - 1])]
        # A name that several rooms have means the one of its own room.
        roots.sort(key=lambda name: (room_of(name) != room_of(source), not is_public(name), name))
        return roots[0] if roots else None


def check_arrow(tree, source, line, included, quoted):
    room = room_of(source)
    if room is None or ROOMS[room] is None:
        return None
    if included.endswith(".pb.h"):
        ok = "images" in ROOMS[room]
        return None if ok else f"{source}:{line}: {room} must not see the images ({included})"
    target = tree.resolve(included, source, quoted)
    if target is None:
        return None
    other = room_of(target)
    if other is None or other == room:
        return None
    if other not in ROOMS[room]:
        return f"{source}:{line}: {room} must not include from {other} ({target})"
    freestanding_pair = source.startswith(FREESTANDING) and target.startswith(FREESTANDING)
    if other in LIBRARIES and not is_public(target) and not freestanding_pair:
        return f"{source}:{line}: {target} is private to {other}; {room} may use its public headers only"
    return None


def freestanding_sources(tree):
    found = []
    for room in FREESTANDING:
        try:
            with open(os.path.join(tree.root, room, "meson.build"), encoding="utf-8") as file:
                blobs = BLOB.findall(file.read())
        except FileNotFoundError:
            blobs = []
        listed = {room + name for sources in blobs for name in re.findall(r"'([^']+)'", sources)}
        found += [name for name in tree.files if name.startswith(room) and (not listed or name in listed)]
    return found


def check_freestanding(tree):
    """Freestanding code and every header of this tree that it reaches."""
    problems = []
    seen = set()
    todo = [(name, name) for name in freestanding_sources(tree)]
    while todo:
        source, why = todo.pop()
        if source in seen:
            continue
        seen.add(source)
        for line, included, quoted in tree.includes(source):
            target = tree.resolve(included, source, quoted)
            if target is not None:
                todo.append((target, why))
            elif included not in FREESTANDING_HEADERS and not included.startswith(FREESTANDING_PREFIXES) \
                    and not (quoted and included.endswith((".blob.h", "-blob.h"))):
                reached = "" if source == why else f" (reached from {why})"
                problems.append(f"{source}:{line}: freestanding code must not include <{included}>{reached}")
    return problems


def check(root):
    tree = Tree(root)
    problems = []
    for source in tree.files:
        for line, included, quoted in tree.includes(source):
            problem = check_arrow(tree, source, line, included, quoted)
            if problem:
                problems.append(problem)
    return problems + check_freestanding(tree)


# ---- proof that the rules bite --------------------------------------------------------------------------------------

CLEAN = {
    "base/include/base/error.hpp": "#include <string>\n",
    "arch/x86/include/arch/regs.hpp": "#include <cstdint>\n",
    "libcompel/include/compel/compel.h": "#include <stdint.h>\n",
    "libcompel/src/seize.hpp": '#include "base/error.hpp"\n',
    "libcompel/src/seize.cpp": '#include "seize.hpp"\n#include "compel/compel.h"\n#include "arch/regs.hpp"\n',
    "libcompel/runtime/std.hpp": "#include <cstdint>\n#include <asm/unistd.h>\n",
    "libsoccr/include/soccr/soccr.h": "",
    "libsoccr/src/soccr.cpp": '#include <soccr/soccr.h>\n#include "base/error.hpp"\n',
    "arch/x86/core/registers.cpp": "#include <core-x86.pb.h>\n",
    "libcriu-core/include/criu/criu.h": "",
    "libcriu-core/src/dump.hpp": "",
    "libcriu-core/src/dump.cpp": '#include <core.pb.h>\n#include <compel/compel.h>\n#include "dump.hpp"\n',
    "libcriu-core/src/parasite/parasite.cpp": '#include "std.hpp"\n#include "arch/regs.hpp"\n#include <linux/futex.h>\n',
    "libcriu-core/src/restorer/meson.build": "e = executable('restorer.elf', 'restorer.cpp',\n  pie: true)\n",
    "libcriu-core/src/restorer/plan.hpp": "#include <cstdint>\n",
    "libcriu-core/src/restorer/restorer.cpp": '#include "plan.hpp"\n#include <sys/syscall.h>\n',
    "libcriu-core/src/restorer/builder.hpp": '#include <vector>\n#include "plan.hpp"\n',
    "tools/criu-cli/main.cpp": "#include <criu/criu.h>\n#include <cstdio>\n",
    "tools/crit/main.cpp": "#include <core.pb.h>\n",
    "tools/crit/pages.hpp": "#include <cstdint>\n",
    "tools/coredump/main.cpp": '#include <core.pb.h>\n#include "pages.hpp"\n',
    "tests/unit/a.cpp": '#include "dump.hpp"\n#include <core.pb.h>\n#include "seize.hpp"\n',
}
VIOLATIONS = [
    ("tool, private header", "tools/criu-cli/bad.cpp", '#include "dump.hpp"\n', "private to libcriu-core"),
    ("tool, image", "tools/criu-cli/bad.cpp", "#include <core.pb.h>\n", "must not see the images"),
    ("tool, the inside of another", "tools/criu-cli/bad.cpp", '#include "pages.hpp"\n', "must not include from tools/crit"),
    ("tool, arch", "tools/criu-cli/bad.cpp", '#include "arch/regs.hpp"\n', "must not include from arch"),
    ("core, private header of compel", "libcriu-core/src/bad.cpp", '#include "seize.hpp"\n', "private to libcompel"),
    ("compel sees soccr", "libcompel/src/bad.cpp", "#include <soccr/soccr.h>\n", "must not include from libsoccr"),
    ("soccr sees compel", "libsoccr/src/bad.cpp", "#include <compel/compel.h>\n", "must not include from libcompel"),
    ("compel sees core", "libcompel/src/bad.cpp", "#include <criu/criu.h>\n", "must not include from libcriu-core"),
    ("compel sees images", "libcompel/src/bad.cpp", "#include <core.pb.h>\n", "must not see the images"),
    ("soccr by path", "libsoccr/src/bad.cpp", '#include "../../libcriu-core/src/dump.hpp"\n', "must not include"),
    ("arch sees a library", "arch/x86/include/arch/bad.hpp", "#include <compel/compel.h>\n", "must not include"),
    ("images in the common part of arch", "arch/x86/include/arch/bad.hpp", "#include <core.pb.h>\n", "images"),
    ("base sees arch", "base/include/base/bad.hpp", '#include "arch/regs.hpp"\n', "must not include from arch"),
    ("libc in the runtime", "libcompel/runtime/bad.cpp", "#include <cstdio>\n", "freestanding"),
    ("libstdc++ in the restorer", "libcriu-core/src/restorer/restorer.cpp", "#include <vector>\n", "freestanding"),
    ("libstdc++ behind a header", "libcriu-core/src/restorer/plan.hpp", "#include <vector>\n", "reached from"),
    ("libc behind a header", "libcriu-core/src/parasite/bad.cpp", '#include "base/error.hpp"\n', "<string>"),
]


def write_tree(root, files):
    for name, text in files.items():
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def self_test():
    failed = 0
    print(f"1..{len(VIOLATIONS) + 1}")
    for number, (title, name, text, expected) in enumerate([("clean", None, None, None)] + VIOLATIONS, 1):
        with tempfile.TemporaryDirectory() as root:
            write_tree(root, CLEAN)
            if name:
                write_tree(root, {name: text})
            problems = check(root)
        if name:
            ok = len(problems) == 1 and expected in problems[0]
        else:
            ok = not problems
        failed += not ok
        print(f"{'ok' if ok else 'not ok'} {number} - {title}")
        if not ok:
            print(f"# expected {expected!r}, found {problems}")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root")
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    if args.self_test:
        return self_test()
    problems = check(args.root or ".")
    print("\n".join(problems) if problems else "include rules: kept")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
