#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What gdb sees in the core files that `coredump` makes of real checkpoints. CRIT, COREDUMP, CRIU_CLI and VICTIM name the
programs."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import images

COREDUMP, CRIU, VICTIM = (os.environ[name] for name in ("COREDUMP", "CRIU_CLI", "VICTIM"))
GDB = shutil.which("gdb")

PYTHON = """
import os, threading
gate = threading.Lock()
gate.acquire()
for i in range(3):
    threading.Thread(target=gate.acquire).start()
print("ready", flush=True)
os.close(1)
gate.acquire()
"""


def coredump(*words):
    return subprocess.run([COREDUMP, *words], capture_output=True, text=True)


def gdb(program, core, *commands):
    arguments = [GDB, "-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set auto-load no"]
    for command in commands:
        arguments += ["-ex", command]
    result = subprocess.run(arguments + [program, core], capture_output=True, text=True, timeout=240)
    return result.stdout, result.stderr


def all_asleep(pid):
    def state(tid):
        with open(f"/proc/{pid}/task/{tid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    return all(state(tid) == "S" for tid in os.listdir(f"/proc/{pid}/task"))


class Checkpoint(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="coredump-test-")
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, *names):
        return os.path.join(self.dir, *names)


class OfAProgram(Checkpoint):
    def dump(self, *command):
        """Starts a program, waits until it says so, and checkpoints it. Its pid."""
        if os.geteuid() != 0:
            self.skipTest("a checkpoint needs root")
        with open(self.path("stdin"), "w", encoding="ascii"):
            pass
        with open(self.path("stdin"), encoding="ascii") as stdin, open(self.path("stderr"), "wb") as stderr:
            process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True)
        try:
            self.assertEqual(process.stdout.readline(), b"ready\n")
            # Who has said so has still a way to go to where it stays.
            until = time.monotonic() + 20
            while not all_asleep(process.pid):
                self.assertLess(time.monotonic(), until)
            os.mkdir(self.path("images"), 0o700)
            result = subprocess.run([CRIU, "dump", "-t", str(process.pid), "-D", self.path("images")], text=True,
                                    capture_output=True)
            self.assertEqual(result.returncode, 0, result.stderr)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        self.images_come_back()
        result = coredump("-i", self.path("images"), "-o", self.dir)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return process.pid, self.path("core.%d" % process.pid)

    def images_come_back(self):
        """What this suite writes, its own fields among it, crit writes again to the same bytes."""
        extended = 0
        for name in os.listdir(self.path("images")):
            if name.startswith("pages-") or not name.endswith(".img"):
                continue
            text = images.crit("decode", "-i", self.path("images", name)).stdout
            with open(self.path("images", name), "rb") as file:
                self.assertEqual(images.crit("encode", input=text).stdout, file.read(), name)
            extended += text.count(b'"extension": {')
        self.assertGreater(extended, 0)

    def test_of_a_cpp_program(self):
        pid, core = self.dump(VICTIM, self.path("deleted"))
        out, err = gdb(VICTIM, core, "info threads", "thread apply all bt", "info auxv", "info proc mappings",
                       "x/s in_data", "x/s in_heap", "x/s in_shared+4096", "x/s in_deleted+4096",
                       "thread apply all p/x $xmm6.v4_int32", "thread apply all p/x $ymm7.v8_int32")
        # Of files that are gone only the core file has the contents, as with the kernel's own.
        gone = re.findall(r"warning: Can't open file (\S+) during file-backed mapping note processing\n", err)
        self.assertEqual(gone, [self.path("deleted"), "/memfd:/dev/zero"])
        self.assertEqual(err.count("warning"), 2, err)
        self.assertEqual(len(re.findall(r"^[ *] +\d+ +(?:Thread|LWP)", out, re.M)), 3, out + err)
        self.assertEqual(len(re.findall(r"^[ *] +\d+ +Thread .* in hold \(number=", out, re.M)), 3, out)
        self.assertIn(" in main ", out.replace(" main (", " in main ("))
        self.assertRegex(out, r"AT_ENTRY")
        self.assertIn(os.path.realpath(VICTIM), out)
        self.assertIn('"what is in the data segment"', out)
        self.assertIn('"what is in the heap"', out)
        self.assertIn('"what is shared"', out)
        self.assertIn('"what was in a deleted file"', out)
        for number in range(3):
            self.assertIn("{0x1111000%d, 0x1111000%d, 0x1111000%d, 0x1111000%d}" % ((number,) * 4), out)
        with open("/proc/cpuinfo", encoding="ascii") as file:
            wide = " avx " in file.read()
        if wide:
            for number in range(3):
                self.assertRegex(out, r"\{0x2222000%d(, 0x2222000%d){7}\}|\{0x2222000%d <repeats 8 times>\}" % ((number,) * 3))
        # No more on the disk than was in memory.
        self.assertLess(os.stat(core).st_blocks * 512, 64 << 20)

    def test_of_python(self):
        python = os.path.realpath("/usr/bin/python3")
        pid, core = self.dump(python, "-c", PYTHON)
        out, err = gdb(python, core, "info threads", "thread apply all bt", "info proc mappings", "info proc")
        self.assertEqual(len(re.findall(r"^[ *] +\d+ +(?:Thread|LWP)", out, re.M)), 4, out + err)
        # Its own symbols, and those of the C library.
        self.assertRegex(out, r"PyEval_EvalCode|Py_RunMain|Py_BytesMain")
        self.assertRegex(out, r"futex|sem_")
        self.assertIn("import os, threading", out)
        notes = subprocess.run(["readelf", "-n", "-W", core], capture_output=True, text=True).stdout
        for note, count in (("NT_PRSTATUS", 4), ("NT_PRPSINFO", 1), ("NT_FPREGSET", 4), ("NT_AUXV", 1), ("NT_FILE", 1),
                            ("NT_SIGINFO", 4)):
            self.assertTrue(len(re.findall(note, notes)) == count, note)  # the notes are long
        self.assertIn("libc.so.6", out)


class OfImages(Checkpoint):
    def setUp(self):
        super().setUp()
        images.checkpoint(self.path("images"))
        files = images.view(self.path("images", "files.img"))
        self.shared = self.path("shared")
        with open(self.shared, "wb") as file:
            file.write(b"f" * 5000)
        files[2]["reg"]["name"] = self.shared
        images.put(self.path("images"), "files.img", "FILES", files)

    def test_contents(self):
        result = coredump("-i", self.path("images"), "-o", self.dir)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        # The zombie has none.
        self.assertEqual(sorted(name for name in os.listdir(self.dir) if name.startswith("core.")), ["core.10", "core.12"])
        listed = subprocess.run(["readelf", "-l", "-W", self.path("core.10")], capture_output=True, text=True).stdout
        segments = {int(line.split()[2], 16): [int(word, 16) for word in line.split()[1:6]]
                    for line in listed.splitlines() if line.strip().startswith("LOAD")}
        sizes = {start: (at, size, whole) for start, (at, _, _, size, whole) in segments.items()}
        page = images.PAGE
        self.assertEqual({start: size for start, (_, size, _) in sizes.items()}, {
            0x400000: page, 0x600000: 12 * page, 0x700000: 4 * page, 0x7f0000: 4 * page, 0x800000: 0,
            0x7ffe000: 4 * page, 0xffffffffff600000: page})
        with open(self.path("core.10"), "rb") as file:
            content = file.read()
        part = lambda start: content[sizes[start][0]:sizes[start][0] + sizes[start][1]]
        with open("/bin/true", "rb") as file:
            self.assertEqual(part(0x400000), file.read(page))
        self.assertEqual(part(0x600000), b"h" * page * 3 + bytes(9 * page))
        self.assertEqual(part(0x700000), b"f" * 5000 + bytes(4 * page - 5000))
        self.assertEqual(part(0x7ffe000), b"s" * page + bytes(3 * page))

    def test_pages_of_a_parent(self):
        images.checkpoint(self.path("before"))
        self.assertEqual(os.stat(self.path("before", "pages-10.img")).st_size, 4 * images.PAGE)
        os.symlink("../before", self.path("images", "parent"))
        entry = lambda at, flags, pages: {"vaddr": at, "compat_nr_pages": 0, "flags": flags, "nr_pages": pages}
        def pagemap(*entries):
            images.put(self.path("images"), "pagemap-10.img", "PAGEMAP", [{"pages_id": 10}, *entries])
        pagemap(entry(0x600000, 1, 2), entry(0x602000, 4, 1))
        with open(self.path("images", "pages-10.img"), "wb") as file:
            file.write(b"N" * images.PAGE)
        result = coredump("-i", self.path("images"), "-o", self.dir, "-p", "10")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        with open(self.path("core.10"), "rb") as file:
            self.assertIn(b"h" * 2 * images.PAGE + b"N" * images.PAGE + bytes(9 * images.PAGE), file.read())
        # Pages that the parent does not have, and a parent that is its own.
        pagemap(entry(0x600000, 1, 4))
        self.assertIn("its parent does not have", coredump("-i", self.path("images"), "-p", "10").stderr)
        os.unlink(self.path("images", "parent"))
        os.symlink(".", self.path("images", "parent"))
        self.assertIn("has no end", coredump("-i", self.path("images"), "-p", "10").stderr)

    def test_one_task(self):
        self.assertEqual(coredump("-i", self.path("images"), "-o", self.dir, "-p", "12").returncode, 0)
        self.assertEqual([name for name in os.listdir(self.dir) if name.startswith("core.")], ["core.12"])
        for pid, why in (("13", "zombie"), ("14", "no task 14"), ("x", "invalid int value")):
            result = coredump("-i", self.path("images"), "-o", self.dir, "-p", pid)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn(why, result.stderr)

    def test_what_is_missing(self):
        os.unlink(self.shared)
        result = coredump("-i", self.path("images"), "-o", self.dir)
        self.assertEqual((result.returncode, result.stderr),
                         (1, "coredump: Required file %s not found.\n" % self.shared))
        self.assertEqual([name for name in os.listdir(self.dir) if name.startswith("core")], [])
        self.assertEqual(coredump("-i", self.path("none")).returncode, 1)
        os.unlink(self.path("images", "pages-10.img"))
        self.assertIn("pages-10.img is missing or shorter", coredump("-i", self.path("images"), "-o", self.dir).stderr)

    def test_damaged(self):
        for name in ("mm-10.img", "core-11.img", "pagemap-10.img"):
            path = self.path("images", name)
            with open(path, "rb") as file:
                good = file.read()
            for at in range(0, len(good), max(1, len(good) // 12)):
                with open(path, "wb") as file:
                    file.write(good[:at] + bytes([good[at] ^ 0xff]) + good[at + 1:])
                result = coredump("-i", self.path("images"), "-o", self.dir, "-p", "10")
                self.assertIn(result.returncode, (0, 1), (name, at))
                self.assertLessEqual(len(result.stderr.splitlines()), 1, result.stderr)
            with open(path, "wb") as file:
                file.write(good)


if __name__ == "__main__":
    if GDB is None:
        print("SKIPPED: no gdb here")
        sys.exit(77)
    unittest.main()
