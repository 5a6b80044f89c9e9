#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""crit as a person or a script calls it. CRIT names the program."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import images
from images import CRIT, crit

MEMORY_LIMIT = 80 << 20  # bytes: the program and its libraries take a third of it


def peak_of(arguments, feed):
    """Runs crit with what `feed` writes on its standard input; its status and the most memory it had."""
    process = subprocess.Popen([CRIT, *arguments], stdin=subprocess.PIPE)
    with process.stdin as pipe:
        feed(pipe)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024


class Program(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="crit-test-")
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def checkpoint(self, name="images"):
        images.checkpoint(self.path(name))
        return self.path(name)

    def fails(self, *words, status=1, **more):
        result = crit(*words, **more)
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertEqual(result.stdout, b"")
        return result.stderr.decode()

    def test_usage(self):
        self.assertEqual(self.fails().splitlines()[-1], "crit: error: too few arguments")
        self.assertIn("invalid choice: 'nonsense'", self.fails("nonsense", status=2))
        self.assertIn("usage: crit info", self.fails("info", status=2))
        self.assertIn("unrecognized arguments: --pretty", self.fails("encode", "--pretty", status=2))
        self.assertIn("expected one argument", self.fails("decode", "-i", status=2))
        self.assertEqual(crit("--version").stdout, b"4.2\n")
        for words in (["--help"], ["decode", "-h"], ["x", "--help"]):
            self.assertTrue(crit(*words).stdout.startswith(b"usage: crit"))

    def test_manuals(self):
        pages = {}
        for name in ("crit.1", "coredump.1"):
            path = os.path.join(os.environ["MANUALS"], name)
            with open(path, encoding="utf-8") as file:
                pages[name] = file.read()
            if shutil.which("mandoc"):
                result = subprocess.run(["mandoc", "-Tlint", "-Wwarning", path], capture_output=True, text=True)
                self.assertEqual((result.returncode, result.stdout), (0, ""))
        commands = re.findall(r"^  (\w+) ", crit("--help").stdout.decode(), re.M)
        self.assertEqual(commands, ["decode", "encode", "info", "show", "x", "report", "diff"])
        for command in commands:
            self.assertIn("\n.It Cm %s\n" % command, pages["crit.1"])
            for option in re.findall(r"--(\w+)", crit(command, "-h").stdout.decode()):
                self.assertIn("\\-" + option, pages["crit.1"])

    def test_in_and_out(self):
        image = self.path("pstree.img")
        entries = [{"pid": 1, "ppid": 0, "pgid": 1, "sid": 1}]
        images.put(self.dir, "pstree.img", "PSTREE", entries)
        text = '{"magic": "PSTREE", "entries": [{"pid": 1, "ppid": 0, "pgid": 1, "sid": 1}]}'
        # A newline on standard output alone.
        self.assertEqual(crit("decode", "-i", image).stdout.decode(), text + "\n")
        with open(image, "rb") as file:
            self.assertEqual(crit("decode", stdin=file).stdout.decode(), text + "\n")
        self.assertEqual(crit("decode", "--in", image, "--out", self.path("text")).returncode, 0)
        with open(self.path("text"), encoding="ascii") as file:
            self.assertEqual(file.read(), text)
        self.assertEqual(json.loads(crit("show", image).stdout), {"magic": "PSTREE", "entries": entries})
        self.assertEqual(crit("info", image).stdout.decode(), '{\n    "magic": "PSTREE",\n    "count": 1\n}\n')
        # In place, and nothing happens to the file when that fails.
        self.assertEqual(crit("decode", "-i", image, "-o", image).returncode, 0)
        before = os.listdir(self.dir)
        self.assertIn("Unknown magic", self.fails("decode", "-i", image, "-o", image))
        with open(image, encoding="ascii") as file:
            self.assertEqual(file.read(), text)
        self.assertEqual(os.listdir(self.dir), before)

    def test_it_prints_as_python_does(self):
        directory = self.checkpoint()
        images.put(directory, "utsns-1.img", "UTSNS", [{"nodename": "\u00e9\U0001f600\x7f\\\"/\n", "domainname": "\udcff"}])
        for name in os.listdir(directory):
            if not name.startswith("pages-"):
                plain = crit("decode", "-i", os.path.join(directory, name)).stdout.decode()
                pretty = crit("show", os.path.join(directory, name)).stdout.decode()
                self.assertEqual(plain, json.dumps(json.loads(plain)) + "\n")
                self.assertEqual(pretty, json.dumps(json.loads(pretty), indent=4) + "\n")

    def test_what_cannot_be_read(self):
        self.assertIn("No such file", self.fails("decode", "-i", self.path("none")))
        self.assertIn("Is a directory", self.fails("decode", "-i", self.dir))
        self.assertIn("No such file", self.fails("x", self.path("none"), "ps"))
        self.assertIn("no pstree.img", self.fails("x", self.dir, "ps"))
        with open("/dev/full", "wb") as full:
            result = subprocess.run([CRIT, "info", self.checkpoint() + "/pstree.img"], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual((result.returncode, b"No space left" in result.stderr), (1, True))

    def test_damaged_images(self):
        """Every image of a checkpoint, cut and changed everywhere: an answer or one line of error, never a crash."""
        directory = self.checkpoint()
        for name in ("core-10.img", "mm-10.img", "files.img", "pagemap-10.img"):
            with open(os.path.join(directory, name), "rb") as file:
                good = file.read()
            step = max(1, len(good) // 12)
            for at in range(0, len(good), step):
                for bad in (good[:at], good[:at] + bytes([good[at] ^ 0xff]) + good[at + 1:]):
                    with open(os.path.join(directory, name), "wb") as file:
                        file.write(bad)
                    for words in (["decode", "-i", os.path.join(directory, name)], ["x", directory, "mems"],
                                  ["report", directory]):
                        result = crit(*words)
                        self.assertIn(result.returncode, (0, 1), (words, at))
                        if result.returncode:
                            self.assertRegex(result.stderr, rb"^crit: [^\n]+\n$")
            with open(os.path.join(directory, name), "wb") as file:
                file.write(good)

    def test_large_images_take_little_memory(self):
        def pagemap(pipe):
            pipe.write(b'{"magic": "PAGEMAP", "entries": [{"pages_id": 1}')
            for block in range(200):
                pipe.write(b"".join(b', {"vaddr": "0x%x", "compat_nr_pages": 0, "flags": "PE_PRESENT", "nr_pages": 1}'
                                    % ((block * 1000 + i) * 8192) for i in range(1000)))
            pipe.write(b"]}")
        image, text = self.path("pagemap-1.img"), self.path("text")
        status, peak = peak_of(["encode", "-o", image], pagemap)
        self.assertEqual(status, 0)
        self.assertLess(peak, MEMORY_LIMIT)
        self.assertEqual(json.loads(crit("info", image).stdout)["count"], 200000)
        status, peak = peak_of(["decode", "-i", image, "-o", text], lambda pipe: None)
        self.assertEqual(status, 0)
        self.assertLess(peak, MEMORY_LIMIT)

        images.put(self.dir, "ghost-file-1.img", "GHOST_FILE", [{"uid": 0, "gid": 0, "mode": 0o100644, "extra": ""}])
        ghost, again = self.path("ghost-file-1.img"), self.path("again")
        with open(ghost, "ab") as file:
            for block in range(128):
                file.write(bytes([block]) * (1 << 20))
        status, peak = peak_of(["decode", "-i", ghost, "-o", text], lambda pipe: None)
        self.assertEqual(status, 0)
        self.assertLess(peak, MEMORY_LIMIT)
        status, peak = peak_of(["encode", "-i", text, "-o", again], lambda pipe: None)
        self.assertEqual(status, 0)
        self.assertLess(peak, MEMORY_LIMIT)
        self.assertEqual(subprocess.run(["cmp", ghost, again]).returncode, 0)

    def test_explore(self):
        directory = self.checkpoint()
        explore = lambda what: crit("x", directory, what).stdout.decode()
        self.assertEqual(explore("ps"), "    PID   PGID    SID   COMM\n"
                                        "     10     10     10   parent\n"
                                        "     13     10     10       gone\n"
                                        "     12     10     10       <b>&\"child\n")
        self.assertEqual(explore("fds"), "10\n\t      0: /tmp/shared\n\t      1: pipe[77]\n\t    cwd: /\n\t   root: /\n"
                                         "13\n"
                                         "12\n\t      0: pipe[77]\n\t      7: /tmp/shared\n\t    cwd: /\n\t   root: /\n")
        lines = explore("mems").splitlines()
        self.assertEqual(lines[:9], [
            "10",
            "\texe                                     /bin/true",
            "\t00400000-00404000                   r-x /bin/true",
            "\t00600000-0060c000                   rw-",
            "\t00700000-00704000                   rw- /tmp/shared (s)",
            "\t007f0000-007f4000                   rw- shmem[1]",
            "\t00800000-00840000                   ---",
            "\t07ffe000-08002000                   rw- [stack?]",
            "\tffffffffff600000-ffffffffff601000   r-x [vsyscall] *"])
        self.assertEqual(explore("rss").splitlines()[:3], [
            "10",
            "%-24s %08x / %-8d" % ("\t600000 / 3", 0x600000, 12),
            "%-24s %08x / %-8d" % ("\t7ffe000 / 1", 0x7ffe000, 4)])
        self.assertIn("invalid choice: 'nothing'", self.fails("x", directory, "nothing", status=2))

    def test_diff(self):
        before, after = self.checkpoint("before"), self.checkpoint("after")
        result = crit("diff", before, after)
        self.assertEqual((result.returncode, result.stdout), (0, b""))
        entry = images.view(after + "/core-10.img")[0]
        entry["thread_info"]["gpregs"]["ip"] = 0x4242
        images.put(after, "core-10.img", "CORE", [entry])
        files = images.view(after + "/files.img")
        images.put(after, "files.img", "FILES", files[1:] + [images.regular(9, "/new")])
        os.unlink(after + "/fs-12.img")
        images.memory(after, 10, [(0x600000, b"H" * 4096 + b"h" * 4096), (0x7ffe000, b"s" * 8192)])
        result = crit("diff", before, after)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(sorted(result.stdout.decode().splitlines()), sorted([
            "core-10.img[0].thread_info.gpregs.ip: 0x1010 → 0x4242",
            "files.img[id 1]: only before: an entry of 3",
            "files.img[id 9]: only after: an entry of 3",
            "fs-12.img: only before",
            "memory of 10 at 600000-60c000: 1 pages changed, 1 only before, 0 only after, 1 the same",
            "memory of 10 at 7ffe000-8002000: 0 pages changed, 0 only before, 1 only after, 1 the same"]))
        self.assertEqual(crit("diff", before, self.path("none")).returncode, 2)


if __name__ == "__main__":
    unittest.main()
