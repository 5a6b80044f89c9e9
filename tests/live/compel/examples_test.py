#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The examples of libcompel do what they say, and the packer refuses what it must.

examples_test.py BORROW COUNTER COMPEL
"""
import os
import subprocess
import sys
import tempfile

borrow, counter, compel = sys.argv[1:4]


def maps(pid):
    with open(f"/proc/{pid}/maps") as file:
        return file.read()


# The victim reads from a pipe of ours: it ends with us, and tells that it was not disturbed.
victim = subprocess.Popen([sys.executable, "-c", "import sys; print('up', flush=True); print(sys.stdin.readline())"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert victim.stdout.readline() == "up\n"
before = maps(victim.pid)
seen = subprocess.run([borrow, str(victim.pid), "/proc/self/stat"], capture_output=True, text=True, check=True).stdout
assert seen.startswith(f"{victim.pid} ("), seen
missing = subprocess.run([borrow, str(victim.pid), "/no/such/file"], capture_output=True, text=True)
assert missing.returncode == 1 and "No such file" in missing.stderr, missing
counted = subprocess.run([counter, str(victim.pid), "4"], capture_output=True, text=True, check=True).stdout
assert counted.startswith(f"1\n3\n6\n10\ntask {victim.pid} has counted to 1\n"), counted
assert maps(victim.pid) == before
assert victim.communicate("done\n")[0] == "done\n\n" and victim.returncode == 0

# The packer.
with tempfile.TemporaryDirectory() as folder:
    def built(source, *flags):
        path = os.path.join(folder, "a.cpp")
        with open(path, "w") as file:
            file.write(source)
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../libcompel/runtime/blob.lds")
        subprocess.run(["c++", "-O1", "-ffreestanding", "-fno-exceptions", "-fno-rtti", "-fno-stack-protector", "-fPIE",
                        "-fno-asynchronous-unwind-tables", "-fno-threadsafe-statics", "-nostdlib", "-static-pie",
                        "-Wl,--no-dynamic-linker", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-Wl,-e,0",
                        "-Wl,-T," + script, *flags, path, "-o", path + ".elf"], check=True)
        return path + ".elf"

    def pack(path):
        return subprocess.run([compel, "pack", path, "-o", "-", "-n", "blob"], capture_output=True, text=True)

    done = pack(built("int value = 7; int* volatile pointer = &value; extern \"C\" int* entry() { return pointer; }"))
    assert done.returncode == 0 and "blob_relocations" in done.stdout and '{"entry", 0}' in done.stdout, done
    with open(os.path.join(folder, "use.c"), "w") as file:
        file.write(done.stdout)
    include = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../libcompel/include")
    for language in ("c", "c++"):
        subprocess.run(["c++", "-x", language, "-fsyntax-only", "-I" + include, os.path.join(folder, "use.c")],
                       check=True, stderr=subprocess.DEVNULL)
    refused = pack(built("int f(); struct A { A(); int x; }; A::A() : x(f()) {} A a; int f() { return 3; }"))
    assert refused.returncode == 1 and "static constructors" in refused.stderr, refused
    refused = pack(built("thread_local int x = 1; int* f() { return &x; }"))
    assert refused.returncode == 1 and "thread-local" in refused.stderr, refused
    refused = pack(compel)
    assert refused.returncode == 1, refused
    assert subprocess.run([compel, "pack", "x", "--frobnicate"], capture_output=True).returncode == 1
