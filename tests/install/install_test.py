#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A system-wide install as a stranger finds it: programs, libraries, headers, pkg-config files, manual.

usage: install_test.py BUILD-DIR

Installs into a scratch directory, mounts it over the prefix (in a mount namespace of its own, so nobody else sees it) and
builds and runs programs outside of this tree against it."""

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = os.path.abspath(sys.argv.pop(1))
LIBRARIES = {"libcompel": "compel", "soccr": "soccr", "criu-core": "criu-core"}  # pkg-config module: library

C_PROGRAM = """
#include <stdio.h>
#include <compel/compel.h>
#include <criu/core.h>
#include <soccr/soccr.h>
int main(void) {
  struct soccr_socket* socket = NULL;
  puts(compel_version());
  return soccr_open(0, &socket) < 0 ? 0 : 1;
}
"""

CPP_PROGRAM = """
#include <compel/compel.hpp>
#include <criu/core.hpp>
#include <cstdio>
#include <cstring>
#include <soccr/soccr.hpp>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "count_blob.h"
int main() {
  criu::core::Options options;
  options.set("tree", "1");
  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  long counted = 0;
  {
    compel::Tree tree = compel::Tree::seize(child);
    if (tree.root().syscall(SYS_getpid) != child) return 2;
    compel::Parasite parasite = tree.root().load(count_blob, 4096);
    parasite.call("count");
    counted = parasite.call("count");
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  std::printf("counted %ld\\n", counted);
  return counted == 2 ? 0 : 1;
}
"""

PARASITE = """
#include <compel/parasite.hpp>
COMPEL_ENTRY long count(void* argument) { return ++*static_cast<long*>(argument); }
"""


def run(*command, **more):
    result = subprocess.run(command, capture_output=True, text=True, **more)
    if result.returncode != 0:
        raise AssertionError("%s: %s\n%s%s" % (command, result.returncode, result.stdout, result.stderr))
    return result.stdout


def options_of(build):
    listed = json.loads(run("meson", "introspect", "--buildoptions", build))
    return {option["name"]: option["value"] for option in listed}


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.options = options_of(BUILD)
        cls.prefix = cls.options["prefix"]
        if cls.prefix in ("/", "/usr"):
            raise unittest.SkipTest("the prefix %s cannot be covered" % cls.prefix)
        cls.dir = tempfile.mkdtemp(prefix="criu-install-")
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        cls.libdir = os.path.join(cls.prefix, cls.options["libdir"])
        cls.sbindir = os.path.join(cls.prefix, cls.options["sbindir"])
        cls.destination = os.path.join(cls.dir, "destination")
        # The tools come from where they are now: the mount may cover them.
        cls.meson = shutil.which("meson")
        run(cls.meson, "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", cls.destination)
        os.makedirs(cls.prefix, exist_ok=True)
        libc = ctypes.CDLL(None, use_errno=True)
        clone_newns, private, bind = 0x20000, 0x4000 | 0x40000, 0x1000
        if libc.unshare(clone_newns) != 0 or libc.mount(b"none", b"/", None, private, None) != 0 or libc.mount(
                (cls.destination + cls.prefix).encode(), cls.prefix.encode(), None, bind, None) != 0:
            raise OSError(ctypes.get_errno(), "mount over " + cls.prefix)
        os.environ["LD_LIBRARY_PATH"] = cls.libdir  # what ldconfig would have found
        os.environ["PKG_CONFIG_PATH"] = os.path.join(cls.libdir, "pkgconfig")
        os.environ["PATH"] += ":%s:%s" % (os.path.join(cls.prefix, cls.options["bindir"]), cls.sbindir)
        os.chdir(cls.dir)

    def write(self, name, text):
        with open(os.path.join(self.dir, name), "w", encoding="utf-8") as file:
            file.write(text)

    def flags(self, *modules):
        return run("pkg-config", "--cflags", "--libs", *modules).split()

    def test_programs(self):
        self.assertEqual(run("criu-cli", "--version"), "Version: 4.2\n")
        link = os.path.join(self.sbindir, "criu")
        if self.options["criu-link"]:
            self.assertEqual(os.readlink(link), "criu-cli")
            self.assertEqual(run("criu", "--version"), "Version: 4.2\n")
        else:
            self.assertFalse(os.path.lexists(link))
        self.assertEqual(run("crit", "--version"), "4.2\n")
        self.assertEqual(run("coredump", "--version"), "4.2\n")
        for page in ("man8/criu-cli.8", "man1/crit.1", "man1/coredump.1"):
            manual = os.path.join(self.prefix, self.options["mandir"], page)
            self.assertTrue(os.path.exists(manual) or os.path.exists(manual + ".gz"))

    def test_libraries(self):
        """Each with a version of its own, a soname, versions at its symbols and nothing else to be seen."""
        for module, library in LIBRARIES.items():
            with self.subTest(module):
                version = run("pkg-config", "--modversion", module).strip()
                self.assertRegex(version, r"^\d+\.\d+\.\d+$")
                major = version.split(".")[0]
                path = os.path.join(self.libdir, "lib%s.so" % library)
                self.assertEqual(os.path.basename(os.path.realpath(path)), "lib%s.so.%s" % (library, version))
                self.assertIn("[lib%s.so.%s]" % (library, major), run("readelf", "-d", path))
                exported = [line.split()[2] for line in run("nm", "-D", "--defined-only", path).splitlines()]
                names = [name for name in exported if not re.fullmatch(r"[A-Z_]+_[0-9.]+(@@.*)?", name)]
                self.assertGreater(len(names), 2)
                # The plugins' interface of CRIU 4.2 has a function without a prefix.
                for name in names:
                    self.assertRegex(name, r"^((compel|soccr|criu)_\w+|add_inventory_plugin)@@[A-Z_]+_\d+\.\d+$")

    def test_c(self):
        self.write("program.c", C_PROGRAM)
        run("cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "program.c", "-o", "c-program",
            *self.flags(*LIBRARIES))
        self.assertEqual(run("./c-program", stdin=subprocess.DEVNULL),
                         run("pkg-config", "--modversion", "libcompel"))

    def test_libcriu(self):
        """The library that programs know CRIU by: the name of the file, of the module, and no versions at its names."""
        self.write("version.c", """
#include <criu/criu.h>
#include <stdio.h>
static int told(char* action, criu_notify_arg_t arg) { return action == NULL || arg->has_pid; }
int main(void) {
  if (criu_init_opts() != 0) return 1;
  criu_set_notify_cb(told);
  printf("%d %s\\n", criu_get_version(), CRIU_VERSION);
  criu_free_opts();
  return 0;
}
""")
        run("cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "version.c", "-o", "version", *self.flags("criu"))
        run("c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-x", "c++", "version.c", "-o", "version-cpp",
            *self.flags("criu"))
        path = os.path.join(self.libdir, "libcriu.so")
        self.assertEqual(os.path.basename(os.path.realpath(path)), "libcriu.so.2.0")
        self.assertIn("[libcriu.so.2]", run("readelf", "-d", path))
        self.assertTrue(os.path.exists(os.path.join(self.libdir, "libcriu.a")))
        self.assertTrue(os.path.exists(os.path.join(self.prefix, "include/criu/rpc.proto")))
        if self.options["criu-link"]:  # it looks for `criu`
            self.assertEqual(run("./version"), "40200 4.2\n")

    def test_cpp_and_a_parasite(self):
        self.write("count.cpp", PARASITE)
        self.write("program.cpp", CPP_PROGRAM)
        run("c++", *run("compel", "cflags").split(), "-c", "count.cpp")
        run("c++", "count.o", *run("compel", "ldflags").split(), "-o", "count.elf")
        run("compel", "pack", "count.elf", "-o", "count_blob.h", "-n", "count_blob")
        for standard in ("c++17", "c++20"):
            run("c++", "-std=" + standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "program.cpp", "-o", "cpp-program",
                *self.flags(*LIBRARIES))
            self.assertEqual(run("./cpp-program"), "counted 2\n")

    def test_without_the_link(self):
        """The other value of the option, in a build directory that is only set up."""
        other = os.path.join(self.dir, "other")
        source = json.loads(run(self.meson, "introspect", "--buildsystem-files", BUILD))[0]
        self.assertTrue(source.endswith("meson.build"), source)
        root = os.path.dirname(source)
        for value in ("true", "false"):
            shutil.rmtree(other, ignore_errors=True)
            run(self.meson, "setup", other, root, "-Dtests=false", "-Dcriu-link=" + value)
            for target in json.loads(run(self.meson, "introspect", "--targets", other)):
                for path in target["filename"] if target["installed"] else []:
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "a", encoding="utf-8"):
                        pass
            destination = os.path.join(self.dir, "other-" + value)
            run(self.meson, "install", "-C", other, "--no-rebuild", "--destdir", destination)
            link = destination + os.path.join(self.prefix, "sbin", "criu")
            self.assertEqual(os.path.lexists(link), value == "true")
            self.assertTrue(os.path.exists(link + "-cli"))


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("the prefix can be covered by root alone")
        sys.exit(77)
    unittest.main()
