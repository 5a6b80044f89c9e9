#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Control groups around a tree: where a restore puts it, what it makes, what a failure leaves, and freezing by group.

cgroups_test.py [CASE...]     runs the program named by $CRIU_CLI, as root
"""
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
CRIU = os.environ["CRIU_CLI"]
LIMIT = 60


def text_of(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def put(path, value):
    with open(path, "w", encoding="utf-8") as file:
        file.write(value)


def mounted():
    """Where the hierarchies are mounted, by their controllers as /proc/PID/cgroup has them; "" is version 2."""
    places = {}
    for line in text_of("/proc/self/mounts").splitlines():
        _, point, kind, options = line.split()[:4]
        if kind == "cgroup2":
            places.setdefault("", point)
        elif kind == "cgroup":
            for word in options.split(","):
                if word in ("pids", "cpu", "memory", "freezer", "cpuset") or word.startswith("name="):
                    places.setdefault(word, point)
    return places


MOUNTED = mounted()


def groups_of(pid):
    return dict(line.split(":", 2)[1:] for line in text_of(f"/proc/{pid}/cgroup").splitlines())


def await_state(pid, letters):
    """Nobody tells when a task has reached a state."""
    until = time.monotonic() + 10
    while text_of(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] not in letters:
        if time.monotonic() > until:
            raise AssertionError(f"task {pid} is not {letters}: " + text_of(f"/proc/{pid}/status"))
        time.sleep(0.001)


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


class CgroupTest(unittest.TestCase):
    number = 0

    def setUp(self):
        CgroupTest.number += 1
        self.name = f"criu-test-{os.getpid()}-{CgroupTest.number}"
        self.images = tempfile.mkdtemp(prefix="criu-cgroups-")
        self.addCleanup(shutil.rmtree, self.images)
        self.groups = []
        self.addCleanup(self.remove_groups)

    def group(self, hierarchy, path, **properties):
        """Makes one, and removes it when the test is over, whoever has made it anew meanwhile."""
        if hierarchy not in MOUNTED:
            self.skipTest(f"no control groups of {hierarchy or 'version 2'} are mounted")
        place = f"{MOUNTED[hierarchy]}/{path}"
        os.mkdir(place)
        self.groups.append(place)
        for name, value in properties.items():
            put(f"{place}/{name.replace('__', '.')}", value)
        return place

    def remove_groups(self):
        """Whatever has gone wrong with them."""
        left = [place for place in self.groups if os.path.isdir(place)]
        for place in left:
            self.thaw(place)
        for place in reversed(left):
            while pids := text_of(f"{place}/cgroup.procs").split():
                for pid in pids:
                    end(int(pid))
            os.rmdir(place)

    def start(self, *groups, command=("sleep", "1000"), flags=()):
        """A session leader in these groups."""
        pid = os.fork()
        if pid == 0:
            for group in groups:
                put(f"{group}/cgroup.procs", "0")
            os.setsid()
            null = os.open("/dev/null", os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            os.closerange(3, 100)
            os.execvp(command[0], [*flags, *command])
        self.addCleanup(end, pid)
        await_state(pid, "S")
        return pid

    def run_criu(self, command, *options, check=True):
        result = subprocess.run([CRIU, command, "-D", self.images, "-v4", *options], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, timeout=LIMIT, text=True, check=False)
        if check:
            self.assertEqual(result.returncode, 0, result.stdout[-4000:])
        else:
            self.assertNotEqual(result.returncode, 0, result.stdout[-4000:])
        return result.stdout

    def dump(self, pid, *options, **more):
        said = self.run_criu("dump", "-t", str(pid), *options, **more)
        if "--leave-running" not in options and more.get("check", True):
            self.reap()
        return said

    @staticmethod
    def reap():
        """Whoever was in a tree that has been dumped."""
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            pass

    def restore(self, pid, *options, **more):
        said = self.run_criu("restore", "-d", *options, **more)
        if more.get("check", True):
            self.assertTrue(os.path.isdir(f"/proc/{pid}"))
            self.addCleanup(end, pid)
        return said

    # ---- where a tree lands, and in what ----

    def dumped(self, **properties):
        """A group of pids, with a tree in it that is dumped."""
        group = self.group("pids", self.name, pids__max="77", **properties)
        pid = self.start(group)
        self.dump(pid)
        return group, pid

    def test_without_options_what_is_missing_is_made(self):
        group, pid = self.dumped()
        os.chmod(group, 0o700)
        os.rmdir(group)
        self.restore(pid)
        self.assertEqual(groups_of(pid)["pids"], f"/{self.name}")
        self.assertEqual(text_of(f"{group}/pids.max"), "77\n")
        end(pid)

    def test_soft_leaves_properties_of_what_is_there(self):
        group, pid = self.dumped()
        put(f"{group}/pids.max", "55")
        os.chown(group, 7, 8)
        self.restore(pid, "--manage-cgroups=soft")
        self.assertEqual(groups_of(pid)["pids"], f"/{self.name}")
        self.assertEqual(text_of(f"{group}/pids.max"), "55\n")
        self.assertEqual(os.stat(group).st_uid, 0)
        end(pid)

    def test_full_sets_properties_of_what_is_there(self):
        group, pid = self.dumped()
        put(f"{group}/pids.max", "55")
        self.restore(pid, "--manage-cgroups=full")
        self.assertEqual(text_of(f"{group}/pids.max"), "77\n")
        end(pid)

    def test_props_needs_groups_and_sets_their_properties(self):
        group, pid = self.dumped()
        put(f"{group}/pids.max", "55")
        self.restore(pid, "--manage-cgroups=props")
        self.assertEqual(text_of(f"{group}/pids.max"), "77\n")
        end(pid)

    def test_none_moves_only(self):
        group, pid = self.dumped()
        put(f"{group}/pids.max", "55")
        os.chown(group, 7, 8)
        self.restore(pid, "--manage-cgroups=none")
        self.assertEqual(groups_of(pid)["pids"], f"/{self.name}")
        self.assertEqual(text_of(f"{group}/pids.max"), "55\n")
        self.assertEqual(os.stat(group).st_uid, 7)
        end(pid)

    def test_none_and_props_refuse_what_is_missing(self):
        group, pid = self.dumped()
        os.rmdir(group)
        for mode in ("none", "props"):
            said = self.restore(pid, f"--manage-cgroups={mode}", check=False)
            self.assertIn("Cgroup dir control group pids:", said)
            self.assertIn("doesn't exist", said)
            self.assertFalse(os.path.isdir(group))

    def test_strict_refuses_what_is_there(self):
        group, pid = self.dumped()
        self.assertIn("Abort restore of existing cgroups", self.restore(pid, "--manage-cgroups=strict", check=False))
        os.rmdir(group)
        self.restore(pid, "--manage-cgroups=strict")
        self.assertEqual(groups_of(pid)["pids"], f"/{self.name}")
        self.assertEqual(text_of(f"{group}/pids.max"), "77\n")
        end(pid)

    def test_ignore_stays_where_the_program_is(self):
        group, pid = self.dumped()
        os.rmdir(group)
        self.restore(pid, "--manage-cgroups=ignore")
        self.assertEqual(groups_of(pid), groups_of("self"))
        self.assertFalse(os.path.isdir(group))
        end(pid)

    def test_a_dump_that_ignores_groups_says_so_at_the_restore(self):
        pid = self.start(self.group("pids", self.name))
        self.dump(pid, "--manage-cgroups=ignore")
        self.assertIn("--manage-cgroups=ignore", self.restore(pid, check=False))
        self.restore(pid, "--manage-cgroups=ignore")
        end(pid)

    def test_a_tree_in_our_own_groups_has_no_image(self):
        pid = self.start()
        self.dump(pid)
        self.assertFalse(os.path.exists(f"{self.images}/cgroup.img"))
        self.restore(pid)
        self.assertEqual(groups_of(pid), groups_of("self"))

    def test_another_root(self):
        group, pid = self.dumped()
        other = self.group("pids", f"{self.name}-other", pids__max="66")
        self.groups.append(f"{other}/deep")
        os.rmdir(group)
        self.restore(pid, "--cgroup-root", f"pids:/{self.name}-other/deep")
        self.assertEqual(groups_of(pid)["pids"], f"/{self.name}-other/deep")
        self.assertEqual(text_of(f"{other}/deep/pids.max"), "77\n")
        self.assertFalse(os.path.isdir(group))
        end(pid)

    def test_groups_below_are_kept(self):
        group = self.group("pids", self.name, pids__max="77")
        below = self.group("pids", f"{self.name}/below", pids__max="33")
        os.chown(below, 7, 8)
        os.chmod(f"{below}/pids.max", 0o600)
        pid = self.start(group)
        self.dump(pid)
        os.rmdir(below)
        os.rmdir(group)
        self.restore(pid)
        self.assertEqual(text_of(f"{below}/pids.max"), "33\n")
        info = os.stat(below)
        self.assertEqual((info.st_uid, info.st_gid), (7, 8))
        self.assertEqual(os.stat(f"{below}/pids.max").st_mode & 0o777, 0o600)
        end(pid)

    def test_a_v2_group_with_a_controller(self):
        group = self.group("", self.name)
        below = self.group("", f"{self.name}/below", cgroup__max__depth="5")
        controllers = text_of(f"{group}/cgroup.controllers").split()
        pid = self.start(below)
        self.dump(pid, "--cgroup-root", f":/{self.name}")
        os.rmdir(below)
        os.rmdir(group)
        self.restore(pid)
        self.assertEqual(groups_of(pid)[""], f"/{self.name}/below")
        self.assertEqual(text_of(f"{below}/cgroup.max.depth"), "5\n")
        self.assertEqual(text_of(f"{group}/cgroup.controllers").split(), controllers)
        end(pid)

    def test_limits_of_a_v2_controller(self):
        self.assert_limit_of_v2("hugetlb", "hugetlb.2MB.max", str(8 << 21))

    def test_limits_of_a_v2_pids_controller(self):
        self.assert_limit_of_v2("pids", "pids.max", "99")

    def test_limits_of_a_v2_memory_controller(self):
        self.assert_limit_of_v2("memory", "memory.max", str(1 << 30))

    def test_weight_of_a_v2_cpu_controller(self):
        self.assert_limit_of_v2("cpu", "cpu.weight", "321")

    def assert_limit_of_v2(self, controller, name, value):
        if "" not in MOUNTED or controller not in text_of(f"{MOUNTED['']}/cgroup.controllers").split():
            self.skipTest(f"version 2 has no controller {controller} here")
        control = f"{MOUNTED['']}/cgroup.subtree_control"
        was_on = controller in text_of(control).split()
        put(control, f"+{controller}")
        if not was_on:
            self.addCleanup(put, control, f"-{controller}")
            self.addCleanup(self.remove_groups)
        group = self.group("", self.name, cgroup__subtree_control=f"+{controller}")
        below = self.group("", f"{self.name}/below")
        put(f"{below}/{name}", value)
        pid = self.start(below)
        self.dump(pid, "--cgroup-root", f":/{self.name}")
        os.rmdir(below)
        os.rmdir(group)
        self.restore(pid)
        self.assertEqual(text_of(f"{below}/{name}"), value + "\n")
        self.assertIn(controller, text_of(f"{group}/cgroup.subtree_control").split())
        end(pid)
        os.rmdir(below)
        os.rmdir(group)
        # Without the controller the limit cannot be kept, and that is said by name.
        put(control, f"-{controller}")
        said = self.restore(pid, check=False)
        self.assertIn(controller, said)
        self.assertIn("not there", said)
        self.assertFalse(os.path.isdir(group))
        put(control, f"+{controller}")

    def test_properties_that_a_user_adds(self):
        group = self.group("cpu", self.name, cpu__shares="512")
        pid = self.start(group)
        self.dump(pid, "--cgroup-props", '"cpu":\n - "strategy": "replace"\n - "properties": []\n')
        os.rmdir(group)
        self.restore(pid)
        self.assertEqual(text_of(f"{group}/cpu.shares"), "1024\n")
        end(pid)

    def test_properties_from_a_file(self):
        group = self.group("cpu", self.name, cpu__shares="512")
        pid = self.start(group)
        put(f"{self.images}/props", '"cpu":\n - "strategy": "replace"\n - "properties": ["cpu.shares"]')
        self.dump(pid, "--cgroup-props-file", f"{self.images}/props")
        os.rmdir(group)
        self.restore(pid)
        self.assertEqual(text_of(f"{group}/cpu.shares"), "512\n")
        end(pid)

    def test_only_some_controllers(self):
        pids, cpu = self.group("pids", self.name), self.group("cpu", self.name)
        pid = self.start(pids, cpu)
        self.dump(pid, "--cgroup-dump-controller", "cpu")
        self.restore(pid)
        self.assertEqual(groups_of(pid)["cpu"], f"/{self.name}")
        self.assertEqual(groups_of(pid)["pids"], groups_of("self")["pids"])
        end(pid)

    def test_a_yard(self):
        group = self.group("pids", self.name, pids__max="77")
        yard = tempfile.mkdtemp(prefix="criu-yard-")
        self.addCleanup(os.rmdir, yard)
        for name, point in MOUNTED.items():
            place = f"{yard}/{name.removeprefix('name=') or 'unified'}"
            os.symlink(point, place)
            self.addCleanup(os.unlink, place)
        pid = self.start(group)
        options = ["--cgroup-yard", yard, "--cgroup-dump-controller", "pids"]
        self.dump(pid, *options)
        os.rmdir(group)
        self.restore(pid, *options[:2])
        self.assertEqual(text_of(f"{group}/pids.max"), "77\n")
        end(pid)
        os.unlink(f"{yard}/pids")
        os.symlink("/nowhere", f"{yard}/pids")
        self.assertIn("--cgroup-yard", self.restore(pid, *options[:2], check=False))

    # ---- control group namespaces ----

    def test_a_container_with_a_namespace(self):
        group = self.group("pids", self.name, pids__max="77")
        unified = self.group("", self.name)
        script = ("umount -a -t nsfs,tracefs; mount -t tmpfs t /mnt && mkdir /mnt/cg && "
                  "mount -t cgroup2 c /mnt/cg && exec sleep 1000")
        self.start(group, unified, command=("unshare", "--cgroup", "--pid", "--mount", "--fork", "--mount-proc",
                                            "setsid", "sh", "-c", script))
        root = self.await_child()
        await_state(root, "S")
        said = text_of(f"/proc/{root}/cgroup")
        # Who made it is not of the tree, and in the way of removing the group.
        self.dump_container(root)
        os.rmdir(group)
        os.rmdir(unified)
        self.run_criu("restore", "-d", "--root", "/", "--pidfile", f"{self.images}/pid")
        pid = int(text_of(f"{self.images}/pid"))
        self.addCleanup(end, pid)
        self.assertEqual(text_of(f"/proc/{pid}/cgroup"), said)
        inside = subprocess.run(["nsenter", "-t", str(pid), "-a", "cat", "/proc/1/cgroup"], stdout=subprocess.PIPE,
                                text=True, check=True).stdout
        self.assertIn("pids:/\n", inside)
        self.assertIn("0::/\n", inside)
        self.assertEqual(text_of(f"{group}/pids.max"), "77\n")
        mounts = text_of(f"/proc/{pid}/mountinfo")
        self.assertIn(f"/{self.name} /mnt/cg", mounts)
        end(pid)

    def await_child(self):
        until = time.monotonic() + 10
        while time.monotonic() < until:
            for pid in text_of(f"/proc/self/task/{os.getpid()}/children").split():
                for child in text_of(f"/proc/{pid}/task/{pid}/children").split():
                    if text_of(f"/proc/{child}/comm") == "sleep\n":
                        return int(child)
            time.sleep(0.001)
        raise AssertionError("the container does not start")

    def dump_container(self, root):
        self.run_criu("dump", "-t", str(root))
        self.reap()

    # ---- failures ----

    def test_a_failed_restore_leaves_no_group(self):
        group = self.group("pids", self.name)
        below = self.group("pids", f"{self.name}/below")
        unified = self.group("", self.name)
        pid = self.start(below, unified, command=("sh", "-c", "sleep 1000; true"))
        self.dump(pid)
        for place in (below, group, unified):
            os.rmdir(place)
        script = f"{self.images}/script"
        put(script, f"#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-restore ] || [ ! -d {unified} ]\n")
        os.chmod(script, 0o755)
        for _ in range(5):
            self.restore(pid, "--action-script", script, check=False)
            for place in (below, group, unified):
                self.assertFalse(os.path.isdir(place), place)

    def test_a_limit_that_cannot_be_set_is_named(self):
        group, pid = self.dumped()
        os.rmdir(group)
        image = f"{self.images}/cgroup.img"
        with open(image, "rb") as file:
            data = file.read()
        self.assertEqual(data.count(b"\x0277"), 1)
        with open(image, "wb") as file:
            file.write(data.replace(b"\x0277", b"\x02xx"))
        self.assertIn("pids.max of control group pids:", self.restore(pid, check=False))
        self.assertFalse(os.path.isdir(group))

    # ---- freezing ----

    def state(self, group):
        if os.path.exists(f"{group}/cgroup.freeze"):
            return text_of(f"{group}/cgroup.freeze").strip()
        return {"THAWED": "0", "FROZEN": "1", "FREEZING": "1"}[text_of(f"{group}/freezer.state").strip()]

    def freeze(self, group):
        if os.path.exists(f"{group}/cgroup.freeze"):
            put(f"{group}/cgroup.freeze", "1")
        else:
            put(f"{group}/freezer.state", "FROZEN")

    def thaw(self, group):
        if os.path.exists(f"{group}/cgroup.freeze"):
            put(f"{group}/cgroup.freeze", "0")
        elif os.path.exists(f"{group}/freezer.state"):
            put(f"{group}/freezer.state", "THAWED")

    def assert_frozen_dump(self, hierarchy):
        group = self.group(hierarchy, self.name)
        below = self.group(hierarchy, f"{self.name}/below")
        pid = self.start(group, command=("sh", "-c",
                                         f"(echo 0 > {below}/cgroup.procs; exec sleep 1001) & sleep 1000; true"))
        self.await_members(below)
        before = groups_of(pid)
        self.dump(pid, "--leave-running", "--freeze-cgroup", group)
        self.assertEqual((self.state(group), self.state(below)), ("0", "0"))
        await_state(pid, "S")
        self.dump(pid, "--freeze-cgroup", group)
        self.assertEqual(self.state(group), "0")
        self.await_members(below, none=True)
        self.restore(pid)
        self.assertEqual(groups_of(pid), before)
        self.assertEqual((self.state(group), self.state(below)), ("0", "0"))
        self.kill_all(group, below)

    def await_members(self, group, none=False):
        until = time.monotonic() + 10
        while (text_of(f"{group}/cgroup.procs") == "") != none:
            self.assertLess(time.monotonic(), until, f"{group} has the wrong members")
            time.sleep(0.001)

    def kill_all(self, *groups):
        for group in groups:
            self.thaw(group)
            for pid in text_of(f"{group}/cgroup.procs").split():
                end(int(pid))
        for group in groups:
            self.await_members(group, none=True)

    def test_freezing_by_v2(self):
        self.assert_frozen_dump("")

    def test_freezing_by_v1(self):
        self.assert_frozen_dump("freezer")

    def assert_was_frozen(self, hierarchy, frozen_below):
        """What stood still before does so again, after a dump that goes on, one that fails, and a restore."""
        group = self.group(hierarchy, self.name)
        below = self.group(hierarchy, f"{self.name}/below")
        pid = self.start(below)
        frozen = below if frozen_below else group
        self.freeze(frozen)
        wanted = (self.state(group), self.state(below))
        self.dump(pid, "--leave-running", "--freeze-cgroup", group)
        self.assertEqual((self.state(group), self.state(below)), wanted)
        script = f"{self.images}/script"
        put(script, "#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != post-dump ]\n")
        os.chmod(script, 0o755)
        self.dump(pid, "--action-script", script, "--freeze-cgroup", group, check=False)
        self.assertEqual((self.state(group), self.state(below)), wanted)
        self.dump(pid, "--freeze-cgroup", group, "--cgroup-root", f"{hierarchy}:/{self.name}")
        self.thaw(frozen)
        os.rmdir(below)
        os.rmdir(group)
        self.restore(pid)
        self.assertEqual((self.state(group), self.state(below)), wanted)
        self.thaw(frozen)
        self.kill_all(below)

    def test_a_frozen_v2_group_stays_frozen(self):
        self.assert_was_frozen("", False)

    def test_a_frozen_v2_group_below_stays_frozen(self):
        self.assert_was_frozen("", True)

    def test_a_frozen_v1_group_stays_frozen(self):
        self.assert_was_frozen("freezer", False)

    def test_a_frozen_v1_group_below_stays_frozen(self):
        self.assert_was_frozen("freezer", True)

    def assert_killed(self, hierarchy):
        """The dumper is killed while the group is frozen: a tree that never stands still sees to that."""
        group = self.group(hierarchy, self.name)
        pid = self.start(group)
        holder = f"{self.images}/holder"
        os.mkfifo(holder)
        script = f"{self.images}/script"
        put(script, f"#!/bin/sh\n[ $CRTOOLS_SCRIPT_ACTION != network-lock ] || exec cat {holder}\n")
        os.chmod(script, 0o755)
        self.freeze(group)
        wanted = self.state(group)
        dumper = subprocess.Popen([CRIU, "dump", "-t", str(pid), "-D", self.images, "-o", "log", "--freeze-cgroup", group,
                                   "--leave-running"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while self.state(group) == wanted and dumper.poll() is None and time.monotonic() < until:
            pass
        dumper.kill()
        dumper.wait()
        until = time.monotonic() + 10
        while self.state(group) != wanted:
            self.assertLess(time.monotonic(), until, "nobody froze the group again")
            time.sleep(0.001)
        self.thaw(group)
        await_state(pid, "S")

    def test_killed_while_v2_is_thawed(self):
        self.assert_killed("")

    def test_killed_while_v1_is_thawed(self):
        self.assert_killed("freezer")

    def test_a_restore_that_is_killed_leaves_no_group(self):
        group, pid = self.dumped()
        os.rmdir(group)
        script, seen = f"{self.images}/script", f"{self.images}/seen"
        for event in ("post-restore", "pre-resume"):
            put(script, f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != {event} ] || '
                f'{{ ls -d {group} >{seen}; kill -9 $PPID; }}\n')
            os.chmod(script, 0o755)
            killed = subprocess.run([CRIU, "restore", "-d", "-D", self.images, "-v0", "--action-script", script],
                                    timeout=LIMIT, check=False)
            self.assertEqual((killed.returncode, text_of(seen)), (-9, group + "\n"))
            self.reap()  # all that it had made, who removes the group among them
            self.assertFalse(os.path.isdir(group), f"killed at {event}")
            self.assertFalse(os.path.isdir(f"/proc/{pid}"))
            os.unlink(seen)

    def test_what_cannot_be_frozen(self):
        pid = self.start()
        self.assertIn("no control group", self.dump(pid, "--freeze-cgroup", "/tmp", check=False))
        self.assertIn("/nowhere", self.dump(pid, "--freeze-cgroup", "/nowhere", check=False))
        group = self.group("freezer", self.name)
        below = self.group("freezer", f"{self.name}/below")
        self.freeze(group)
        self.assertIn("above it is frozen", self.dump(pid, "--freeze-cgroup", below, check=False))
        self.thaw(group)
        self.assertEqual((self.state(group), self.state(below)), ("0", "0"))
        said = subprocess.run(["sh", "-c", f"echo 0 > {below}/cgroup.procs; {CRIU} dump -t {pid} -D {self.images} -v4 "
                               f"--freeze-cgroup {group}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=LIMIT, check=False)
        self.assertNotEqual(said.returncode, 0)
        self.assertIn("in that control group itself", said.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
